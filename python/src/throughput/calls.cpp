// Dispatch and combine, for Python.
#include <nanobind/nanobind.h>

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpu.hpp"
#include "tensors/arguments.hpp"
#include "tensors/dtypes.hpp"
#include "throughput/buffer.hpp"
#include "throughput/results.hpp"

namespace switchyard::python {

namespace {

// Options that callers seldom give, and give alike in many calls.
struct CallOptions {
  bool cast_to_fp8 = false;
  bool expanded = false;
  int expert_alignment = 1;
  bool zero_padding = false;
  bool weights_of_all_ranks = false;
  std::int64_t num_worst_tokens = 0;
  int num_workers = 0;
  int num_sms = 0;
  std::uintptr_t cuda_stream = 0;
  bool current_stream = false;  // in the place of cuda_stream: the one that is current in the framework of x
  bool keep_source_tokens = false;
  bool scales_by_column = false;  // calls that return tensors at once, and are not queued
  bool keep_ids = false;          // calls that return tensors at once: the handle keeps a copy of topk_idx
  bool queued = false;            // calls that return tensors at once: they return before the call is done
  std::int64_t most_tokens = 0;   // calls that ask whether they fit: the most tokens; 0: any number
  Event after{};
};

// `routing` is a Handle, token_in_rank, or None.
void read_routing(char const* /*name*/, nb::handle object, DispatchArgs& args, Exports& exports) {
  if (nb::isinstance<DispatchHandle>(object)) {
    args.handle = nb::cast<DispatchHandle const&>(object).handle;
  } else {
    args.token_in_rank = input("token_in_rank", object, exports);
  }
}

void read_handle(char const* name, nb::handle object, CombineArgs& args, Exports& /*exports*/) {
  if (object.is_none()) return;
  if (!nb::isinstance<DispatchHandle>(object)) throw wrong_type(name, "the Handle of a dispatch", object);
  args.handle = nb::cast<DispatchHandle const&>(object).handle;
}

// `rest` is None, or (bias0, bias1, out).
void read_rest(char const* /*name*/, nb::handle object, CombineArgs& args, Exports& exports) {
  if (object.is_none()) return;
  auto const rest = nb::cast<nb::tuple>(object);
  args.bias0 = input("bias0", rest[0], exports);
  args.bias1 = input("bias1", rest[1], exports);
  args.out = output("out", rest[2], exports);
}

struct DispatchFamily {
  using Args = DispatchArgs;
  using Options = CallOptions;
  static constexpr std::array table{tensor_argument<&Args::x>("x"),
                                    tensor_argument<&Args::scales>("scales"),
                                    tensor_argument<&Args::topk_idx>("topk_idx"),
                                    tensor_argument<&Args::topk_weights>("topk_weights"),
                                    Argument<Args>{"routing", &read_routing},
                                    tensor_argument<&Args::received_per_expert>("received_per_expert")};
  static void set(Args& args, Options const& options) {
    args.keep_ids = options.keep_ids;
    args.cast_to_fp8 = options.cast_to_fp8;
    args.layout = options.expanded ? OutputLayout::expanded : OutputLayout::flat;
    args.expert_alignment = options.expert_alignment;
    args.zero_padding = options.zero_padding;
    args.num_worst_tokens = options.num_worst_tokens;
    args.after = options.after;
  }
};

struct CombineFamily {
  using Args = CombineArgs;
  using Options = CallOptions;
  static constexpr std::array table{tensor_argument<&Args::x>("x"), Argument<Args>{"handle", &read_handle},
                                    tensor_argument<&Args::topk_weights>("topk_weights"),
                                    tensor_argument<&Args::row_weights>("row_weights"),
                                    Argument<Args>{"rest", &read_rest}};
  static void set(Args& args, Options const& options) {
    args.weights_of_all_ranks = options.weights_of_all_ranks;
    args.after = options.after;
  }
};

using DispatchInputs = Inputs<DispatchFamily>;
using CombineInputs = Inputs<CombineFamily>;

DispatchResult dispatch(PyBuffer& self, DispatchInputs& inputs, CallOptions const& options);
CombineResult combine(PyBuffer& self, CombineInputs& inputs, CallOptions const& options);

// Reads the arguments of a call. If they cannot be passed to the engine, the peers must not be left waiting: `call`
// is made without its x, which every rank refuses, and then the error of this rank is thrown.
template <typename Family, typename Call>
auto read_or_refuse(Inputs<Family>& inputs, CallOptions const& options, Call call) {
  try {
    return inputs.read(options);
  } catch (...) {
    try {
      nb::object const none = nb::none();
      std::array<nb::handle, Inputs<Family>::count> nothing;
      nothing.fill(none);
      Inputs<Family> refused(nothing);
      call(refused, CallOptions{.cuda_stream = inputs.stream(options)});
    } catch (Error const&) {
    }
    throw;
  }
}

DispatchArgs arguments(PyBuffer& self, DispatchInputs& inputs, CallOptions const& options) {
  return read_or_refuse(inputs, options, [&](auto& refused, auto const& how) { dispatch(self, refused, how); });
}

CombineArgs arguments(PyBuffer& self, CombineInputs& inputs, CallOptions const& options) {
  return read_or_refuse(inputs, options, [&](auto& refused, auto const& how) { combine(self, refused, how); });
}

// ---- dispatch ----

std::shared_ptr<std::vector<std::int32_t>> copy_of(Tensor const& source_token) {
  auto const* const begin = source_token.data<std::int32_t>();
  return std::make_shared<std::vector<std::int32_t>>(begin, begin + source_token.view().numel());
}

WeakTensor weak_tensor(Tensor const& tensor, Buffer const& buffer) {
  return {tensor.owner(), tensor.view(), gpu_of(buffer)};
}

DispatchResult dispatch_now(Buffer& buffer, DispatchArgs const& args, bool keep_source_tokens) {
  DispatchResult result;
  run_here([&] {
    result.value = buffer.dispatch(args);
    if (keep_source_tokens) result.handle.source_tokens = copy_of(result.value.source_token);
    return true;
  });
  result.handle.source_token = weak_tensor(result.value.source_token, buffer);
  result.handle.handle = result.value.handle;
  return result;
}

PendingDispatch queue_dispatch(Buffer& buffer, DispatchArgs const& args, bool keep_source_tokens) {
  nb::gil_scoped_release const released;
  Pending<Dispatched> pending = buffer.dispatch_async(args);
  PendingDispatch later{pending, PyEvent(pending.event()), {}, on_gpu(buffer) || args.num_worst_tokens > 0};
  if (keep_source_tokens) {
    auto const copy = std::make_shared<std::vector<std::int32_t>>();
    later.result.handle.source_tokens = copy;
    later.event = PyEvent(buffer.stream().submit([pending, copy] {
      pending.event().wait();  // returns at once, behind the dispatch; throws if that failed
      *copy = *copy_of(pending.early().source_token);
    }));
  }
  later.result.handle.handle = pending.early().handle;
  // On the CPU engine the dispatch is still making the tensor.
  if (on_gpu(buffer)) later.result.handle.source_token = weak_tensor(pending.early().source_token, buffer);
  later.result.handle.ready = later.event;
  return later;
}

PendingDispatch dispatch_async(PyBuffer& self, DispatchInputs& inputs, CallOptions const& options) {
  auto const buffer = self.get();
  DispatchArgs const args = arguments(self, inputs, options);
  self.prune();
  PendingDispatch pending = queue_dispatch(*buffer, args, options.keep_source_tokens);
  self.keep(pending.event.get(), inputs.kept());
  settle(*buffer, inputs.x());
  pending.result.exporter = Exporter(inputs.x(), gpu_of(*buffer));
  return pending;
}

DispatchResult dispatch(PyBuffer& self, DispatchInputs& inputs, CallOptions const& options) {
  auto const buffer = self.get();
  if (!self.runs_here(options.after)) {
    PendingDispatch const pending = dispatch_async(self, inputs, options);
    wait_for(pending.event.get(), std::nullopt);
    return {pending.pending.early(), pending.result.exporter, pending.result.handle};
  }
  DispatchResult result = dispatch_now(*buffer, arguments(self, inputs, options), options.keep_source_tokens);
  settle(*buffer, inputs.x());
  result.exporter = Exporter(inputs.x(), gpu_of(*buffer));
  return result;
}

// A copy of the ids on the stream of the call, where the dispatch has made none, in a tenth of the time that a
// framework's copy takes the host. Empty where the engine cannot make it at once, and the caller copies them.
Tensor copy_of_ids(Buffer& buffer, ConstTensorView const& ids, std::uintptr_t stream) {
  if (ids.ndim != 2 || ids.numel() == 0) return {};
  if (on_gpu(buffer)) return buffer.copy(ids, stream);
  // Handles, which programs keep for long, hold no memory of a heap on the CPU.
  if (ids.stride(1) != 1 || ids.stride(0) != ids.size(1)) return {};
  auto const* const begin = static_cast<std::byte const*>(ids.data);
  auto const copy = std::make_shared<std::vector<std::byte>>(
      begin, begin + static_cast<std::size_t>(ids.numel()) * size_of(ids.dtype));
  return {TensorView(copy->data(), ids.dtype, {ids.size(0), ids.size(1)}), copy};
}

// After the dispatch, whose host waits meanwhile: what comes first delays it.
void keep_ids(PyBuffer& self, DispatchInputs const& inputs, CallOptions const& options, DispatchResult& result) {
  if (!options.keep_ids) return;
  result.handle.ids = std::move(result.value.ids);
  if (result.handle.ids.given()) return;
  Exports exports;
  ConstTensorView const ids = input("topk_idx", inputs.object(2), exports);
  std::uintptr_t const stream = inputs.stream(options);
  auto const buffer = self.get();
  nb::gil_scoped_release const released;
  result.handle.ids = copy_of_ids(*buffer, ids, stream);
}

// The scales by column, where there is room at once.
void turn_scales(Buffer& buffer, std::uintptr_t stream, DispatchResult& result) {
  if (!result.value.scales.given()) return;
  nb::gil_scoped_release const released;
  Tensor columns = buffer.by_column(result.value.scales, stream);
  if (!columns.given()) return;
  result.value.scales = std::move(columns);
  result.handle.scales_by_column = true;
}

// Everything that a dispatch returns, in one call: a property of a result each would be a call each.
nb::tuple dispatch_tensors(PyBuffer& self, DispatchInputs& inputs, CallOptions const& options) {
  nb::object event = nb::none();
  DispatchResult result;
  if (options.queued) {
    PendingDispatch const pending = dispatch_async(self, inputs, options);
    event = nb::cast(pending.event);
    result = early_result(pending);
  } else {
    result = dispatch(self, inputs, options);
    if (options.scales_by_column) turn_scales(*self.get(), inputs.stream(options), result);
  }
  keep_ids(self, inputs, options, result);
  return tensors_of(std::move(result), std::move(event));
}

// The number of experts, as itself or as the length of a tensor of counts; -1 for anything else.
std::int64_t experts_in(nb::handle counts) {
  if (PyLong_CheckExact(counts.ptr()) != 0) {
    int overflow = 0;
    return PyLong_AsLongLongAndOverflow(counts.ptr(), &overflow);  // -1, too, for what does not fit
  }
  auto const tensor = borrowed(counts);
  if (!tensor || tensor->ndim != 1 || !is_integer(tensor->dtype)) return -1;
  return tensor->shape[0];
}

// The arguments of a dispatch without a handle, before anything is checked.
struct Unchecked {
  nb::handle x;  // and its scales, or None
  nb::handle scales;
  nb::handle topk_idx;
  nb::handle experts;
  nb::handle received_per_expert;  // or None
};

// Is it a call of this buffer, rather than of one that was made for other sizes, or a wrong one?
bool fits(Buffer const& buffer, Unchecked const& call, CallOptions const& options) {
  auto const x = borrowed(call.x);
  auto const ids = borrowed(call.topk_idx);
  if (!x || !ids || !sizes_fit(buffer, *x, *ids) || !is_floating(x->dtype)) return false;
  if (options.most_tokens > 0 && x->shape[0] > options.most_tokens) return false;
  if (!call.received_per_expert.is_none() && !can_be_added_to(buffer, call.received_per_expert)) return false;
  return experts_in(call.experts) == buffer.options().num_experts;
}

// The tensors of a dispatch, if it fits this buffer; None: it may be one of another buffer, or a wrong one. `x` is
// a tensor, or a tuple of one and its scales. Asked here a call need not be asked about in Python.
nb::object dispatch_if_it_fits(PyBuffer& self, nb::handle x, nb::handle topk_idx, nb::handle topk_weights,
                               nb::handle experts, CallOptions const& options, nb::handle received_per_expert) {
  nb::object none = nb::none();
  Unchecked call{x, none, topk_idx, experts, received_per_expert};
  if (nb::isinstance<nb::tuple>(x) && nb::len(x) == 2) {
    call.x = PyTuple_GetItem(x.ptr(), 0);
    call.scales = PyTuple_GetItem(x.ptr(), 1);
  }
  auto const buffer = self.get();
  if (!fits(*buffer, call, options)) return none;
  DispatchInputs inputs({call.x, call.scales, topk_idx, topk_weights, none, received_per_expert});
  return dispatch_tensors(self, inputs, options);
}

// ---- combine ----

PendingCombine combine_async(PyBuffer& self, CombineInputs& inputs, CallOptions const& options) {
  auto const buffer = self.get();
  CombineArgs const args = arguments(self, inputs, options);
  self.prune();
  Pending<Combined> const pending = [&] {
    nb::gil_scoped_release const released;
    return buffer->combine_async(args);
  }();
  self.keep(pending.event(), inputs.kept());
  settle(*buffer, inputs.x());
  return {pending, PyEvent(pending.event()), {{}, Exporter(inputs.x(), gpu_of(*buffer))}, on_gpu(*buffer)};
}

CombineResult combine(PyBuffer& self, CombineInputs& inputs, CallOptions const& options) {
  auto const buffer = self.get();
  if (!self.runs_here(options.after)) {
    PendingCombine const pending = combine_async(self, inputs, options);
    wait_for(pending.event.get(), std::nullopt);
    return {pending.pending.early(), pending.result.exporter};
  }
  CombineArgs const args = arguments(self, inputs, options);
  Combined combined = run_here([&] { return buffer->combine(args); });
  settle(*buffer, inputs.x());
  return {std::move(combined), Exporter(inputs.x(), gpu_of(*buffer))};
}

nb::tuple combine_tensors(PyBuffer& self, CombineInputs& inputs, CallOptions const& options) {
  if (!options.queued) return tensors_of(combine(self, inputs, options), nb::none());
  PendingCombine const pending = combine_async(self, inputs, options);
  return tensors_of(early_result(pending), nb::cast(pending.event));
}

void bind_call_options(nb::module_& module) {
  nb::class_<CallOptions>(module, "CallOptions", "Options of a dispatch or a combine; see switchyard.interop.")
      .def(nb::init<>())
      .def_rw("cast_to_fp8", &CallOptions::cast_to_fp8)
      .def_rw("expanded", &CallOptions::expanded)
      .def_rw("expert_alignment", &CallOptions::expert_alignment)
      .def_rw("zero_padding", &CallOptions::zero_padding)
      .def_rw("weights_of_all_ranks", &CallOptions::weights_of_all_ranks)
      .def_rw("num_worst_tokens", &CallOptions::num_worst_tokens)
      .def_rw("num_workers", &CallOptions::num_workers)
      .def_rw("num_sms", &CallOptions::num_sms)
      .def_rw("cuda_stream", &CallOptions::cuda_stream)
      .def_rw("current_stream", &CallOptions::current_stream)
      .def_rw("keep_ids", &CallOptions::keep_ids)
      .def_rw("scales_by_column", &CallOptions::scales_by_column)
      .def_rw("queued", &CallOptions::queued)
      .def_rw("most_tokens", &CallOptions::most_tokens)
      .def_rw("keep_source_tokens", &CallOptions::keep_source_tokens)
      .def_prop_rw(
          "after", [](CallOptions const& self) { return PyEvent(self.after); },
          [](CallOptions& self, PyEvent const& event) { self.after = event.get(); })
      .def(
          "starting_after",
          [](CallOptions self, PyEvent const& event) {
            self.after = event.get();
            return self;
          },
          nb::arg("event"), "Returns a copy with that `after`.");
}

}  // namespace

void bind_calls(nb::module_& module, nb::class_<PyBuffer>& buffer) {
  bind_call_options(module);
  define_call<DispatchFamily, PyBuffer&, &dispatch>(buffer, "dispatch");
  define_call<DispatchFamily, PyBuffer&, &dispatch_async>(buffer, "dispatch_async");
  define_call<DispatchFamily, PyBuffer&, &dispatch_tensors>(buffer, "dispatch_tensors");
  buffer.def("dispatch_if_it_fits", &dispatch_if_it_fits, nb::arg("x"), nb::arg("topk_idx").none(),
             nb::arg("topk_weights").none(), nb::arg("experts").none(), nb::arg("options"),
             nb::arg("received_per_expert").none());
  define_call<CombineFamily, PyBuffer&, &combine>(buffer, "combine");
  define_call<CombineFamily, PyBuffer&, &combine_async>(buffer, "combine_async");
  define_call<CombineFamily, PyBuffer&, &combine_tensors>(buffer, "combine_tensors");
}

}  // namespace switchyard::python
