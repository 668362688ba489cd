// Results of dispatch and combine, for Python.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "event.hpp"
#include "switchyard/buffer.hpp"
#include "tensors/outputs.hpp"

namespace switchyard::python {

// A tensor that does not keep its memory: it can be read as long as another tensor of the same block lives.
struct WeakTensor {
  std::weak_ptr<void> owner;
  TensorView view;
  int gpu = 0;
};

// The handle of a dispatch, and the properties that only Python's has.
struct DispatchHandle {
  Handle handle;
  PyEvent ready;  // before it, only a combine that is queued may use the handle
  // Source tokens of the received rows: a copy if the caller asked for one, since the tensor would keep all rows.
  std::shared_ptr<std::vector<std::int32_t>> source_tokens;
  WeakTensor source_token;
  bool scales_by_column = false;  // what the caller has of the scales is a copy by column
  Tensor ids{};                   // a copy of topk_idx, if the caller asked for one and it was simple to make
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

// The result of an asynchronous call. Unlike Pending it may be taken more than once.
template <typename Value, typename Result>
struct PendingResult {
  Pending<Value> pending;
  PyEvent event;  // completes with the last part of the call
  Result result;
  bool known_early = false;  // before the event only the contents of tensors are missing
};

using PendingDispatch = PendingResult<Dispatched, DispatchResult>;
using PendingCombine = PendingResult<Combined, CombineResult>;

// Does not wait. A call that is under way may be writing its value, so that is there only when it is known early.
DispatchResult early_result(PendingDispatch const& pending);
CombineResult early_result(PendingCombine const& pending);

// (x, scales, topk_idx, topk_weights, tokens_per_expert, the Handle, event).
nb::tuple tensors_of(DispatchResult&& result, nb::object event);
// (x, topk_weights, event).
nb::tuple tensors_of(CombineResult&& result, nb::object event);

void bind_results(nb::module_& module);

}  // namespace switchyard::python
