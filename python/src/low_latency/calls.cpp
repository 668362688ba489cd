// Dispatch and combine of the low-latency mode. A call whose arguments are refused has sent nothing, and the peers
// wait for the corrected call.
#include <nanobind/stl/tuple.h>

#include <array>
#include <string>
#include <tuple>
#include <utility>

#include "gpu.hpp"
#include "low_latency/buffer.hpp"
#include "tensors/arguments.hpp"
#include "tensors/dtypes.hpp"

namespace switchyard::python {

namespace {

void read_handle(char const* argument, nb::handle object, LowLatencyCombineArgs& args, Exports& /*exports*/) {
  args.handle = received_of(argument, object)->handle;
}

struct DispatchFamily {
  using Args = LowLatencyDispatchArgs;
  using Options = LowLatencyCallOptions;
  static constexpr std::array table{tensor_argument<&Args::x>("x"),
                                    tensor_argument<&Args::scales>("scales"),
                                    tensor_argument<&Args::topk_idx>("topk_idx"),
                                    tensor_argument<&Args::topk_weights>("topk_weights"),
                                    tensor_argument<&Args::received_per_expert>("received_per_expert"),
                                    tensor_argument<&Args::wait_ns_per_source>("wait_ns_per_source"),
                                    tensor_argument<&Args::counts>("counts")};
  static void set(Args& args, Options const& options) {
    args.cast = options.cast;
    args.layout = options.layout;
  }
};

struct CombineFamily {
  using Args = LowLatencyCombineArgs;
  using Options = LowLatencyCallOptions;
  static constexpr std::array table{tensor_argument<&Args::x>("x"), Argument<Args>{"handle", &read_handle},
                                    tensor_argument<&Args::topk_weights>("topk_weights"),
                                    tensor_argument<&Args::out>("out"),
                                    tensor_argument<&Args::wait_ns_per_source>("wait_ns_per_source")};
  static void set(Args& args, Options const& options) { args.coding = options.coding; }
};

using DispatchInputs = Inputs<DispatchFamily>;
using CombineInputs = Inputs<CombineFamily>;

LowLatencyResult result_of(LowLatencyReceived&& received, LowLatencyBuffer const& buffer, nb::handle x,
                           std::int64_t num_tokens) {
  return {of_this_process(std::move(received)), Exporter(x, gpu_of(buffer)), num_tokens};
}

LowLatencyResult dispatch(OwnedLowLatency const& self, DispatchInputs& inputs,
                          LowLatencyCallOptions const& options) {
  auto const buffer = self.get();
  LowLatencyDispatchArgs const args = inputs.read(options);
  LowLatencyReceived received = run_here([&] { return buffer->dispatch(args); });
  settle(*buffer, inputs.x(), args.cuda_stream);
  return result_of(std::move(received), *buffer, inputs.x(), args.x.size(0));
}

std::tuple<LowLatencyResult, PyReceiveHook> send_dispatch(nb::handle self, DispatchInputs& inputs,
                                                          LowLatencyCallOptions const& options) {
  auto const buffer = nb::cast<OwnedLowLatency&>(self).get();
  LowLatencyDispatchArgs const args = inputs.read(options);
  ReceiveHook hook;
  LowLatencyReceived received = run_here([&] { return buffer->send_dispatch(args, hook); });
  return {result_of(std::move(received), *buffer, inputs.x(), args.x.size(0)),
          PyReceiveHook(nb::borrow(self), std::move(hook), inputs.kept())};
}

void combine(OwnedLowLatency const& self, CombineInputs& inputs, LowLatencyCallOptions const& options) {
  auto const buffer = self.get();
  LowLatencyCombineArgs const args = inputs.read(options);
  run_here([&] { buffer->combine(args); });
  settle(*buffer, inputs.x(), args.cuda_stream);
}

PyReceiveHook send_combine(nb::handle self, CombineInputs& inputs, LowLatencyCallOptions const& options) {
  auto const buffer = nb::cast<OwnedLowLatency&>(self).get();
  LowLatencyCombineArgs const args = inputs.read(options);
  ReceiveHook hook;
  run_here([&] { buffer->send_combine(args, hook); });
  return {nb::borrow(self), std::move(hook), inputs.kept()};
}

// What a caller with tensors of its own needs, in one call: (x, scales, what finds the result again, the hook or
// None). What finds the result holds the slots until it lets go.
nb::tuple tensors_of(LowLatencyResult&& result, nb::object hook) {
  nb::object x = result(result.value->x);
  nb::object scales = result(result.value->scales);
  std::weak_ptr<LowLatencyReceived> const weak = result.value;
  return nb::make_tuple(std::move(x), std::move(scales),
                        WeakLowLatencyResult{weak, result.exporter, result.num_tokens, std::move(result.value)},
                        std::move(hook));
}

nb::tuple dispatch_tensors(nb::handle self, DispatchInputs& inputs, LowLatencyCallOptions const& options) {
  if (!options.with_hook)
    return tensors_of(dispatch(nb::cast<OwnedLowLatency&>(self), inputs, options), nb::none());
  auto [result, hook] = send_dispatch(self, inputs, options);
  return tensors_of(std::move(result), nb::cast(std::move(hook)));
}

// Is it a call of this buffer, rather than of one that was made for other sizes, or a wrong one?
bool fits(LowLatencyBuffer const& buffer, nb::handle x_object, nb::handle ids_object) {
  auto const x = borrowed(x_object);
  auto const ids = borrowed(ids_object);
  return x && ids && sizes_fit(buffer, *x, *ids) && dtype_of(x->dtype) == DType::bf16;
}

// The tensors of a dispatch of a bfloat16 x, if it fits this buffer; None: it may be one of another buffer, or a
// wrong one.
nb::object dispatch_if_it_fits(nb::handle self, nb::handle x, nb::handle topk_idx, nb::handle received_per_expert,
                               nb::handle wait_ns_per_source, nb::handle counts,
                               LowLatencyCallOptions const& options) {
  nb::object none = nb::none();
  if (!fits(*nb::cast<OwnedLowLatency&>(self).get(), x, topk_idx)) return none;
  DispatchInputs inputs({x, none, topk_idx, none, received_per_expert, wait_ns_per_source, counts});
  return dispatch_tensors(self, inputs, options);
}

// A tensor of the framework of `like` in memory of that, for sums.
nb::object memory_for_sums(nb::handle like, std::int64_t tokens, std::int64_t hidden) {
  return like.attr("new_empty")(tokens, hidden);
}

// Everything of a combine in one call: (the sums, the hook or None). Once it is queued the result is not held any
// more.
nb::tuple combine_tensors(nb::handle_t<OwnedLowLatency> self, nb::handle x, nb::handle handle,
                          nb::handle topk_weights, nb::handle out, nb::handle wait_ns_per_source,
                          LowLatencyCallOptions const& options) {
  if (!nb::isinstance<WeakLowLatencyResult>(handle))
    throw wrong_type("handle", "what dispatch_tensors returned", handle);
  auto& result = nb::cast<WeakLowLatencyResult&>(handle);
  auto& owned = nb::cast<OwnedLowLatency&>(self);
  nb::object sums =
      out.is_none() ? memory_for_sums(x, result.num_tokens, owned.get()->options().hidden) : nb::borrow(out);
  CombineInputs inputs({x, handle, topk_weights, sums, wait_ns_per_source});
  nb::object hook = nb::none();
  if (options.with_hook) {
    hook = nb::cast(send_combine(self, inputs, options));
  } else {
    combine(owned, inputs, options);
  }
  result.held.reset();
  return nb::make_tuple(std::move(sums), std::move(hook));
}

}  // namespace

void bind_low_latency_calls(nb::class_<OwnedLowLatency>& buffer) {
  define_call<DispatchFamily, OwnedLowLatency const&, &dispatch>(buffer, "dispatch");
  define_call<DispatchFamily, nb::handle_t<OwnedLowLatency>, &send_dispatch>(buffer, "send_dispatch");
  define_call<DispatchFamily, nb::handle_t<OwnedLowLatency>, &dispatch_tensors>(buffer, "dispatch_tensors");
  buffer.def(
      "dispatch_if_it_fits",
      [](nb::handle_t<OwnedLowLatency> self, nb::handle x, nb::handle topk_idx, nb::handle received_per_expert,
         nb::handle wait_ns_per_source, nb::handle counts, LowLatencyCallOptions const& options) {
        return dispatch_if_it_fits(self, x, topk_idx, received_per_expert, wait_ns_per_source, counts, options);
      },
      nb::arg("x").none(), nb::arg("topk_idx").none(), nb::arg("received_per_expert").none(),
      nb::arg("wait_ns_per_source").none(), nb::arg("counts"), nb::arg("options"));
  define_call<CombineFamily, OwnedLowLatency const&, &combine>(buffer, "combine");
  buffer.def("combine_tensors", &combine_tensors, nb::arg("x"), nb::arg("handle"), nb::arg("topk_weights").none(),
             nb::arg("out").none(), nb::arg("wait_ns_per_source").none(), nb::arg("options"));
  define_call<CombineFamily, nb::handle_t<OwnedLowLatency>, &send_combine>(buffer, "send_combine");
}

}  // namespace switchyard::python
