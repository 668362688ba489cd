// Dispatch and combine of the low-latency mode. A call that is refused here is refused before anything is sent, and
// the peers wait for the corrected one.
#include <nanobind/stl/tuple.h>

#include <tuple>
#include <vector>

#include "low_latency/buffer.hpp"
#include "settle.hpp"
#include "tensors/inputs.hpp"
#include "throughput/buffer.hpp"

namespace switchyard::python {

namespace {

struct DispatchInputs {
  nb::handle x;
  nb::handle scales;
  nb::handle topk_idx;
  nb::handle topk_weights;
  nb::handle received_per_expert;
  nb::handle wait_ns_per_source;
  Exports exports{};

  [[nodiscard]] std::vector<nb::object> kept() const {
    return kept_alive({x, scales, topk_idx, topk_weights, received_per_expert, wait_ns_per_source}, exports);
  }
};

struct CombineInputs {
  nb::handle x;
  nb::handle handle;
  nb::handle topk_weights;
  nb::handle out;
  nb::handle wait_ns_per_source;
  Exports exports{};

  [[nodiscard]] std::vector<nb::object> kept() const {
    return kept_alive({x, handle, topk_weights, out, wait_ns_per_source}, exports);
  }
};

LowLatencyDispatchArgs arguments(DispatchInputs& inputs, LowLatencyCallOptions const& options) {
  return {.x = input("x", inputs.x, inputs.exports),
          .scales = input("scales", inputs.scales, inputs.exports),
          .topk_idx = input("topk_idx", inputs.topk_idx, inputs.exports),
          .topk_weights = input("topk_weights", inputs.topk_weights, inputs.exports),
          .cast = options.cast,
          .layout = options.layout,
          .received_per_expert = output("received_per_expert", inputs.received_per_expert, inputs.exports),
          .wait_ns_per_source = output("wait_ns_per_source", inputs.wait_ns_per_source, inputs.exports),
          .num_workers = options.num_workers,
          .num_sms = options.num_sms,
          .cuda_stream = options.cuda_stream};
}

LowLatencyCombineArgs arguments(CombineInputs& inputs, LowLatencyCallOptions const& options) {
  return {.x = input("x", inputs.x, inputs.exports),
          .handle = nb::cast<PyLowLatencyHandle const&>(inputs.handle).value->handle,
          .topk_weights = input("topk_weights", inputs.topk_weights, inputs.exports),
          .coding = options.coding,
          .out = output("out", inputs.out, inputs.exports),
          .wait_ns_per_source = output("wait_ns_per_source", inputs.wait_ns_per_source, inputs.exports),
          .num_workers = options.num_workers,
          .num_sms = options.num_sms,
          .cuda_stream = options.cuda_stream};
}

LowLatencyResult result_of(LowLatencyReceived&& received, LowLatencyBuffer const& buffer, nb::handle x,
                           std::int64_t num_tokens) {
  return {of_this_process(std::move(received)), Exporter(x, gpu_of(buffer)), num_tokens};
}

LowLatencyResult dispatch(OwnedLowLatency const& self, DispatchInputs& inputs,
                          LowLatencyCallOptions const& options) {
  auto const buffer = self.get();
  LowLatencyDispatchArgs const args = arguments(inputs, options);
  LowLatencyReceived received = run_here([&] { return buffer->dispatch(args); });
  settle(*buffer, inputs.x, args.cuda_stream);
  return result_of(std::move(received), *buffer, inputs.x, args.x.size(0));
}

std::tuple<LowLatencyResult, PyReceiveHook> send_dispatch(nb::handle self, DispatchInputs& inputs,
                                                          LowLatencyCallOptions const& options) {
  auto const buffer = nb::cast<OwnedLowLatency&>(self).get();
  LowLatencyDispatchArgs const args = arguments(inputs, options);
  ReceiveHook hook;
  LowLatencyReceived received = run_here([&] { return buffer->send_dispatch(args, hook); });
  return {result_of(std::move(received), *buffer, inputs.x, args.x.size(0)),
          PyReceiveHook(nb::borrow(self), std::move(hook), inputs.kept())};
}

void combine(OwnedLowLatency const& self, CombineInputs& inputs, LowLatencyCallOptions const& options) {
  auto const buffer = self.get();
  LowLatencyCombineArgs const args = arguments(inputs, options);
  run_here([&] { buffer->combine(args); });
  settle(*buffer, inputs.x, args.cuda_stream);
}

PyReceiveHook send_combine(nb::handle self, CombineInputs& inputs, LowLatencyCallOptions const& options) {
  auto const buffer = nb::cast<OwnedLowLatency&>(self).get();
  LowLatencyCombineArgs const args = arguments(inputs, options);
  ReceiveHook hook;
  run_here([&] { buffer->send_combine(args, hook); });
  return {nb::borrow(self), std::move(hook), inputs.kept()};
}

template <typename Self, auto Call>
void define_dispatch(nb::class_<OwnedLowLatency>& buffer, char const* name) {
  buffer.def(
      name,
      [](Self self, nb::handle x, nb::handle scales, nb::handle topk_idx, nb::handle topk_weights,
         nb::handle received, nb::handle wait_ns, LowLatencyCallOptions const& options) {
        DispatchInputs inputs{x, scales, topk_idx, topk_weights, received, wait_ns};
        return Call(self, inputs, options);
      },
      nb::arg("x").none(), nb::arg("scales").none(), nb::arg("topk_idx").none(), nb::arg("topk_weights").none(),
      nb::arg("received_per_expert").none(), nb::arg("wait_ns_per_source").none(), nb::arg("options"));
}

template <typename Self, auto Call>
void define_combine(nb::class_<OwnedLowLatency>& buffer, char const* name) {
  buffer.def(
      name,
      [](Self self, nb::handle x, nb::handle handle, nb::handle topk_weights, nb::handle out, nb::handle wait_ns,
         LowLatencyCallOptions const& options) {
        CombineInputs inputs{x, handle, topk_weights, out, wait_ns};
        return Call(self, inputs, options);
      },
      nb::arg("x").none(), nb::arg("handle"), nb::arg("topk_weights").none(), nb::arg("out").none(),
      nb::arg("wait_ns_per_source").none(), nb::arg("options"));
}

}  // namespace

void bind_low_latency_calls(nb::class_<OwnedLowLatency>& buffer) {
  define_dispatch<OwnedLowLatency const&, &dispatch>(buffer, "dispatch");
  define_dispatch<nb::handle_t<OwnedLowLatency>, &send_dispatch>(buffer, "send_dispatch");
  define_combine<OwnedLowLatency const&, &combine>(buffer, "combine");
  define_combine<nb::handle_t<OwnedLowLatency>, &send_combine>(buffer, "send_combine");
}

}  // namespace switchyard::python
