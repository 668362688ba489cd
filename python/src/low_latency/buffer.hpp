// The low-latency mode, for Python.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
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

// Finds the result again while one of its tensors, or its handle, lives.
struct WeakLowLatencyResult {
  std::weak_ptr<LowLatencyReceived> value;
  Exporter exporter;
  std::int64_t num_tokens = 0;
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
  void operator()(std::uintptr_t cuda_stream);

 private:
  nb::object buffer_;
  std::shared_ptr<ReceiveHook> hook_;
  std::vector<nb::object> kept_;
};

void bind_low_latency(nb::module_& module);
void bind_low_latency_results(nb::module_& module);
void bind_low_latency_calls(nb::class_<OwnedLowLatency>& buffer);

}  // namespace switchyard::python
