// Dispatch and combine, for Python.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "event.hpp"
#include "switchyard/buffer.hpp"
#include "throughput/results.hpp"

namespace switchyard::python {

// The tensor that shares a block with the received rows, and does not keep them.
struct Glimpse {
  std::weak_ptr<void> owner;
  TensorView view;
  int gpu = 0;
};

// Handle, and what else Python is told of a dispatch.
struct DispatchHandle {
  Handle handle;
  PyEvent ready;  // before it, only a combine that is queued may use the handle
  // The received rows' tokens on their source ranks. When asked for: a copy, since the tensor keeps all rows.
  std::shared_ptr<std::vector<std::int32_t>> source_tokens;
  Glimpse source_token;
};

// What is seldom given, and given alike for many calls.
struct CallOptions {
  bool cast_to_fp8 = false;
  bool expanded = false;
  int expert_alignment = 1;
  bool zero_padding = false;
  std::int64_t num_worst_tokens = 0;
  int num_workers = 0;
  int num_sms = 0;
  std::uintptr_t cuda_stream = 0;
  bool keep_source_tokens = false;
  Event after{};
};

struct DispatchResult {
  Dispatched value;
  Exporter exporter;
  DispatchHandle handle;
};

struct CombineResult {
  Combined value;
  Exporter exporter;
};

// The result of an asynchronous call, as Pending; it may be taken more than once.
template <typename Value, typename Result>
struct PendingResult {
  Pending<Value> pending;
  PyEvent event;  // of the last thing that belongs to the call
  Result result;
  bool known_early = false;  // before the event the value stands, but for the contents of tensors
};

using PendingDispatch = PendingResult<Dispatched, DispatchResult>;
using PendingCombine = PendingResult<Combined, CombineResult>;

void bind_call_options(nb::module_& module);
void bind_results(nb::module_& module);

}  // namespace switchyard::python
