// The low-latency mode, for Python.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "process.hpp"
#include "switchyard/low_latency.hpp"
#include "tensors/outputs.hpp"

namespace switchyard::python {

using OwnedLowLatency = Owned<LowLatencyBuffer>;

// Options that callers give alike in many calls.
struct LowLatencyCallOptions {
  SendCast cast = SendCast::none;
  SlotLayout layout = SlotLayout::expert_major;
  CombineCoding coding = CombineCoding::none;
  int num_workers = 0;
  int num_sms = 0;
  std::uintptr_t cuda_stream = 0;
  bool with_hook = false;       // calls that return tensors at once: they only send, and a hook receives
  bool current_stream = false;  // in the place of cuda_stream: the one that is current in the framework of x
};

// The tensors of a dispatch and its handle each keep the slots.
struct LowLatencyResult {
  std::shared_ptr<LowLatencyReceived> value;
  Exporter exporter;
  std::int64_t num_tokens = 0;

  [[nodiscard]] nb::object operator()(Tensor const& tensor) const {
    return exporter(tensor.given() ? Tensor(tensor.view(), value) : tensor);
  }
};

// Finds the result again while one of its tensors, or its handle, lives. Until it lets go it keeps the result
// itself.
struct WeakLowLatencyResult {
  std::weak_ptr<LowLatencyReceived> value;
  Exporter exporter;
  std::int64_t num_tokens = 0;
  std::shared_ptr<LowLatencyReceived> held{};
};

struct PyLowLatencyHandle {
  std::shared_ptr<LowLatencyReceived> value;
  std::int64_t num_tokens = 0;
};

// The receive half of a call. It keeps the inputs of the call until it has run.
class PyReceiveHook {
 public:
  PyReceiveHook(nb::object buffer, ReceiveHook&& hook, std::vector<nb::object> kept)
      : buffer_(std::move(buffer)), hook_(of_this_process(std::move(hook))), kept_(std::move(kept)) {}
  void operator()(std::optional<std::uintptr_t> cuda_stream);

 private:
  nb::object buffer_;
  std::shared_ptr<ReceiveHook> hook_;
  std::vector<nb::object> kept_;
};

// The result of a LowLatencyHandle, or of a WeakLowLatencyResult that it still finds. Throws TypeError and
// InvalidArgument.
std::shared_ptr<LowLatencyReceived> received_of(char const* name, nb::handle object);

void bind_low_latency(nb::module_& module);
void bind_low_latency_results(nb::module_& module);
void bind_low_latency_calls(nb::class_<OwnedLowLatency>& buffer);

}  // namespace switchyard::python
