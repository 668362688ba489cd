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

namespace switchyard::python {

namespace {

void read_handle(char const* argument, nb::handle object, LowLatencyCombineArgs& args, Exports& /*exports*/) {
  if (!nb::isinstance<PyLowLatencyHandle>(object))
    throw wrong_type(argument, "the handle of a low-latency dispatch", object);
  args.handle = nb::cast<PyLowLatencyHandle const&>(object).value->handle;
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

}  // namespace

void bind_low_latency_calls(nb::class_<OwnedLowLatency>& buffer) {
  define_call<DispatchFamily, OwnedLowLatency const&, &dispatch>(buffer, "dispatch");
  define_call<DispatchFamily, nb::handle_t<OwnedLowLatency>, &send_dispatch>(buffer, "send_dispatch");
  define_call<CombineFamily, OwnedLowLatency const&, &combine>(buffer, "combine");
  define_call<CombineFamily, nb::handle_t<OwnedLowLatency>, &send_combine>(buffer, "send_combine");
}

}  // namespace switchyard::python
