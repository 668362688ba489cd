#include <nanobind/nanobind.h>

#include <optional>
#include <utility>

#include "settle.hpp"
#include "tensors/inputs.hpp"
#include "throughput/buffer.hpp"
#include "throughput/calls.hpp"

namespace switchyard::python {

namespace {

struct Inputs {
  nb::handle x;
  nb::handle scales;
  nb::handle topk_idx;
  nb::handle topk_weights;
  nb::handle routing;  // a Handle, token_in_rank, or None
  Exports exports{};

  [[nodiscard]] std::vector<nb::object> kept() const {
    return kept_alive({x, scales, topk_idx, topk_weights, routing}, exports);
  }
};

DispatchArgs arguments_of(Inputs& inputs, CallOptions const& options) {
  DispatchArgs args;
  args.x = input("x", inputs.x, inputs.exports);
  args.scales = input("scales", inputs.scales, inputs.exports);
  args.topk_idx = input("topk_idx", inputs.topk_idx, inputs.exports);
  args.topk_weights = input("topk_weights", inputs.topk_weights, inputs.exports);
  if (nb::isinstance<DispatchHandle>(inputs.routing)) {
    args.handle = nb::cast<DispatchHandle const&>(inputs.routing).handle;
  } else {
    args.token_in_rank = input("token_in_rank", inputs.routing, inputs.exports);
  }
  args.cast_to_fp8 = options.cast_to_fp8;
  args.layout = options.expanded ? OutputLayout::expanded : OutputLayout::flat;
  args.expert_alignment = options.expert_alignment;
  args.zero_padding = options.zero_padding;
  args.num_worst_tokens = options.num_worst_tokens;
  args.num_workers = options.num_workers;
  args.num_sms = options.num_sms;
  args.after = options.after;
  args.cuda_stream = options.cuda_stream;
  return args;
}

DispatchResult dispatch(PyBuffer& self, Inputs inputs, CallOptions const& options);

// What cannot even be named to the engine must not leave the peers waiting: the call is made without its x, which
// every rank refuses, and this rank then throws what it has found.
DispatchArgs arguments(PyBuffer& self, Inputs& inputs, CallOptions const& options) {
  try {
    return arguments_of(inputs, options);
  } catch (...) {
    try {
      nb::object const none = nb::none();
      dispatch(self, {none, none, none, none, none}, {.cuda_stream = options.cuda_stream});
    } catch (Error const&) {
    }
    throw;
  }
}

std::shared_ptr<std::vector<std::int32_t>> copy_of(Tensor const& source_token) {
  auto const* const begin = source_token.data<std::int32_t>();
  return std::make_shared<std::vector<std::int32_t>>(begin, begin + source_token.view().numel());
}

Glimpse glimpse_of(Tensor const& tensor, Buffer const& buffer) {
  return {tensor.owner(), tensor.view(), gpu_of(buffer)};
}

DispatchResult call_now(Buffer& buffer, DispatchArgs const& args, bool keep_source_tokens) {
  DispatchResult result;
  run_here([&] {
    result.value = buffer.dispatch(args);
    if (keep_source_tokens) result.handle.source_tokens = copy_of(result.value.source_token);
    return true;
  });
  result.handle.source_token = glimpse_of(result.value.source_token, buffer);
  result.handle.handle = result.value.handle;
  return result;
}

PendingDispatch call_later(Buffer& buffer, DispatchArgs const& args, bool keep_source_tokens) {
  nb::gil_scoped_release const released;
  Pending<Dispatched> pending = buffer.dispatch_async(args);
  bool const on_gpu = buffer.engine() == EngineKind::cuda;
  PendingDispatch later{pending, PyEvent(pending.event()), {}, on_gpu || args.num_worst_tokens > 0};
  if (keep_source_tokens) {
    auto const copy = std::make_shared<std::vector<std::int32_t>>();
    later.result.handle.source_tokens = copy;
    later.event = PyEvent(buffer.stream().submit([pending, copy] {
      pending.event().wait();  // over; throws if it failed
      *copy = *copy_of(pending.early().source_token);
    }));
  }
  later.result.handle.handle = pending.early().handle;
  // On the CPU the tensor is being made.
  if (on_gpu) later.result.handle.source_token = glimpse_of(pending.early().source_token, buffer);
  later.result.handle.ready = later.event;
  return later;
}

PendingDispatch start(PyBuffer& self, Inputs inputs, CallOptions const& options) {
  auto const buffer = self.get();
  DispatchArgs const args = arguments(self, inputs, options);
  self.prune();
  PendingDispatch pending = call_later(*buffer, args, options.keep_source_tokens);
  self.keep(pending.event.get(), inputs.kept());
  settle(*buffer, inputs.x);
  pending.result.exporter = Exporter(inputs.x, gpu_of(*buffer));
  return pending;
}

DispatchResult dispatch(PyBuffer& self, Inputs inputs, CallOptions const& options) {
  auto const buffer = self.get();
  if (!self.runs_here(options.after)) {
    PendingDispatch const pending = start(self, std::move(inputs), options);
    wait_for(pending.event.get(), std::nullopt);
    return {pending.pending.early(), pending.result.exporter, pending.result.handle};
  }
  DispatchResult result = call_now(*buffer, arguments(self, inputs, options), options.keep_source_tokens);
  settle(*buffer, inputs.x);
  result.exporter = Exporter(inputs.x, gpu_of(*buffer));
  return result;
}

}  // namespace

void bind_call_options(nb::module_& module) {
  nb::class_<CallOptions>(module, "CallOptions")
      .def(nb::init<>())
      .def_rw("cast_to_fp8", &CallOptions::cast_to_fp8)
      .def_rw("expanded", &CallOptions::expanded)
      .def_rw("expert_alignment", &CallOptions::expert_alignment)
      .def_rw("zero_padding", &CallOptions::zero_padding)
      .def_rw("num_worst_tokens", &CallOptions::num_worst_tokens)
      .def_rw("num_workers", &CallOptions::num_workers)
      .def_rw("num_sms", &CallOptions::num_sms)
      .def_rw("cuda_stream", &CallOptions::cuda_stream)
      .def_rw("keep_source_tokens", &CallOptions::keep_source_tokens)
      .def_prop_rw(
          "after", [](CallOptions const& self) { return PyEvent(self.after); },
          [](CallOptions& self, PyEvent const& event) { self.after = event.get(); });
}

void bind_dispatch(nb::class_<PyBuffer>& buffer) {
  buffer
      .def(
          "dispatch",
          [](PyBuffer& self, nb::handle x, nb::handle scales, nb::handle topk_idx, nb::handle topk_weights,
             nb::handle routing, CallOptions const& options) {
            return dispatch(self, {x, scales, topk_idx, topk_weights, routing}, options);
          },
          nb::arg("x").none(), nb::arg("scales").none(), nb::arg("topk_idx").none(), nb::arg("topk_weights").none(),
          nb::arg("routing").none(), nb::arg("options"))
      .def(
          "dispatch_async",
          [](PyBuffer& self, nb::handle x, nb::handle scales, nb::handle topk_idx, nb::handle topk_weights,
             nb::handle routing, CallOptions const& options) {
            return start(self, {x, scales, topk_idx, topk_weights, routing}, options);
          },
          nb::arg("x").none(), nb::arg("scales").none(), nb::arg("topk_idx").none(), nb::arg("topk_weights").none(),
          nb::arg("routing").none(), nb::arg("options"));
}

}  // namespace switchyard::python
