// The classes that calls return.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "throughput/calls.hpp"
#include "waiting.hpp"

namespace switchyard::python {

namespace {

// What a handle tells is written by the dispatch.
Handle const& ready(DispatchHandle const& self) {
  if (!self.ready.get().done()) wait_for(self.ready.get(), std::nullopt);
  return self.handle;
}

nb::object source_tokens(DispatchHandle const& self) {
  ready(self);
  if (auto owner = self.source_token.owner.lock(); owner && !self.source_tokens)
    return nb::cast(HeapTensor{Tensor(self.source_token.view, std::move(owner)), {}, self.source_token.gpu});
  if (!self.source_tokens) return nb::none();
  auto const rows = static_cast<std::int64_t>(self.source_tokens->size());
  return nb::cast(
      HeapTensor{Tensor(TensorView(self.source_tokens->data(), DType::i32, {rows}), self.source_tokens), {}});
}

// Small tensors of lists take PyTorch several times as long.
nb::object real_tokens(DispatchHandle const& self, nb::handle like) {
  auto const& counts = ready(self).real_tokens_per_expert();
  auto const values = std::make_shared<std::vector<std::int32_t>>(counts.begin(), counts.end());
  auto const local_experts = static_cast<std::int64_t>(values->size());
  return Exporter(like)(Tensor(TensorView(values->data(), DType::i32, {local_experts}), values));
}

void bind_handle(nb::module_& module) {
  nb::class_<DispatchHandle>(module, "Handle",
                             "What a dispatch knows and its combine needs: who sent which token where. After a "
                             "dispatch that is still under way, the properties wait for it.")
      .def_prop_ro(
          "num_tokens", [](DispatchHandle const& self) { return ready(self).num_tokens(); },
          "Tokens of this rank in the dispatch.")
      .def_prop_ro(
          "num_recv_rows", [](DispatchHandle const& self) { return ready(self).num_recv_rows(); },
          "Rows received, without those of a worst case.")
      .def_prop_ro(
          "tokens_per_expert", [](DispatchHandle const& self) { return ready(self).tokens_per_expert(); },
          "Rows of each local expert, rounded up to expert_alignment; empty without topk_idx.")
      .def_prop_ro(
          "real_tokens_per_expert", [](DispatchHandle const& self) { return ready(self).real_tokens_per_expert(); },
          "The same without the rounding.")
      .def("real_tokens", &real_tokens, nb::arg("like"),
           "real_tokens_per_expert as a tensor: [L] int32, on the CPU.")
      .def_prop_ro(
          "recv_rows_end_by_rank", [](DispatchHandle const& self) { return ready(self).recv_rows_end_by_rank(); },
          "Rows received from all ranks up to each; flat layout only.")
      .def_prop_ro(
          "source_tokens", &source_tokens,
          "[n] int32 as a HeapTensor: a copy, if it was asked for; else None when the received rows are gone.");
}

// A call that is under way may be writing its value.
template <typename Value, typename Result>
Value early(PendingResult<Value, Result> const& self) {
  return self.event.get().done() || self.known_early ? self.pending.early() : Value{};
}

template <typename Value, typename Result>
Value get(PendingResult<Value, Result> const& self) {
  wait_for(self.event.get(), std::nullopt);
  return self.pending.early();
}

DispatchResult result_of(PendingDispatch const& self, Dispatched&& value) {
  return {std::move(value), self.result.exporter, self.result.handle};
}

void bind_dispatched(nb::module_& module) {
  nb::class_<DispatchResult>(module, "DispatchResult")
      .def_prop_ro("x", [](DispatchResult const& self) { return self.exporter(self.value.x); })
      .def_prop_ro("scales", [](DispatchResult const& self) { return self.exporter(self.value.scales); })
      .def_prop_ro("topk_idx", [](DispatchResult const& self) { return self.exporter(self.value.topk_idx); })
      .def_prop_ro("topk_weights",
                   [](DispatchResult const& self) { return self.exporter(self.value.topk_weights); })
      .def_prop_ro("source_token",
                   [](DispatchResult const& self) { return self.exporter(self.value.source_token); })
      .def_prop_ro("tokens_per_expert", [](DispatchResult const& self) { return self.value.tokens_per_expert; })
      .def_prop_ro("recv_counts",
                   [](DispatchResult const& self) { return self.exporter(self.value.handle.recv_counts()); })
      .def_prop_ro("handle", [](DispatchResult const& self) { return self.handle; });
  nb::class_<PendingDispatch>(module, "PendingDispatch")
      .def_prop_ro("event", [](PendingDispatch const& self) { return self.event; })
      .def_prop_ro("handle", [](PendingDispatch const& self) { return self.result.handle; })
      .def("early", [](PendingDispatch const& self) { return result_of(self, early(self)); })
      .def("get", [](PendingDispatch const& self) { return result_of(self, get(self)); });
}

void bind_combined(nb::module_& module) {
  nb::class_<CombineResult>(module, "CombineResult")
      .def_prop_ro("x", [](CombineResult const& self) { return self.exporter(self.value.x); })
      .def_prop_ro("topk_weights",
                   [](CombineResult const& self) { return self.exporter(self.value.topk_weights); });
  nb::class_<PendingCombine>(module, "PendingCombine")
      .def_prop_ro("event", [](PendingCombine const& self) { return self.event; })
      .def("early",
           [](PendingCombine const& self) {
             return CombineResult{early(self), self.result.exporter};
           })
      .def("get", [](PendingCombine const& self) {
        return CombineResult{get(self), self.result.exporter};
      });
}

}  // namespace

void bind_results(nb::module_& module) {
  bind_handle(module);
  bind_dispatched(module);
  bind_combined(module);
}

}  // namespace switchyard::python
