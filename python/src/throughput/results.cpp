#include "throughput/results.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "errors.hpp"
#include "waiting.hpp"

namespace switchyard::python {

namespace {

// The dispatch writes the properties of its handle.
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

// PyTorch would take several times as long to make a small tensor of a list.
nb::object real_tokens(DispatchHandle const& self, nb::handle like) {
  auto const& counts = ready(self).real_tokens_per_expert();
  auto const values = std::make_shared<std::vector<std::int32_t>>(counts.begin(), counts.end());
  auto const local_experts = static_cast<std::int64_t>(values->size());
  return Exporter(like)(Tensor(TensorView(values->data(), DType::i32, {local_experts}), values));
}

nb::object recv_counts(DispatchHandle const& self, nb::handle like) {
  return Exporter(like, self.source_token.gpu)(self.handle.recv_counts());
}

nb::object kept_ids(DispatchHandle const& self, nb::handle like) {
  return Exporter(like, self.source_token.gpu)(self.ids);
}

void bind_handle(nb::module_& module) {
  nb::class_<DispatchHandle>(
      module, "Handle",
      "The routes of a dispatch, for its combine and for cached dispatches. While the dispatch is under way, the "
      "properties wait for it.")
      .def_prop_ro(
          "num_tokens", [](DispatchHandle const& self) { return ready(self).num_tokens(); },
          "The number of this rank's tokens in the dispatch.")
      .def_prop_ro(
          "num_recv_rows", [](DispatchHandle const& self) { return ready(self).num_recv_rows(); },
          "Rows received, without the unused ones of a worst case.")
      .def_prop_ro(
          "tokens_per_expert", [](DispatchHandle const& self) { return ready(self).tokens_per_expert(); },
          "Rows of each local expert, rounded up to expert_alignment; empty without topk_idx.")
      .def_prop_ro(
          "real_tokens_per_expert", [](DispatchHandle const& self) { return ready(self).real_tokens_per_expert(); },
          "Rows of each local expert, without the rounding.")
      .def("real_tokens", &real_tokens, nb::arg("like"),
           "real_tokens_per_expert as a tensor: [L] int32, on the CPU.")
      .def("recv_counts", &recv_counts, nb::arg("like"),
           "What the CUDA engine counts in GPU memory, as a tensor on the GPU of `like`: [R, 1 + most local "
           "experts of a rank] int32: from each rank the rows (flat layout only), then the rows for each local "
           "expert. None on the CPU engine, and after a dispatch in rounds. Does not wait for the dispatch.")
      .def_ro("scales_by_column", &DispatchHandle::scales_by_column)
      .def_prop_ro("keeps_ids", [](DispatchHandle const& self) { return self.ids.given(); })
      .def(
          "kept_ids", &kept_ids, nb::arg("like"),
          "The copy of topk_idx as a tensor, if the dispatch was asked for one and keeps_ids says that it made it.")
      .def_prop_ro(
          "recv_rows_end_by_rank", [](DispatchHandle const& self) { return ready(self).recv_rows_end_by_rank(); },
          "Rows received from all ranks up to each; flat layout only.")
      .def_prop_ro("source_tokens", &source_tokens,
                   "[n] int32 as a HeapTensor: source tokens of the received rows. A copy, if the dispatch was "
                   "asked for one; else None once the received rows are freed.");
}

template <typename Value, typename Result>
Value early(PendingResult<Value, Result> const& self) {
  return self.event.get().done() || self.known_early ? self.pending.early() : Value{};
}

template <typename Value, typename Result>
Value get(PendingResult<Value, Result> const& self) {
  wait_for(self.event.get(), std::nullopt);
  return self.pending.early();
}

DispatchResult with_value(PendingDispatch const& self, Dispatched&& value) {
  return {std::move(value), self.result.exporter, self.result.handle};
}

CombineResult with_value(PendingCombine const& self, Combined&& value) {
  return {std::move(value), self.result.exporter};
}

}  // namespace

DispatchResult early_result(PendingDispatch const& pending) {
  return with_value(pending, early(pending));
}

CombineResult early_result(PendingCombine const& pending) {
  return with_value(pending, early(pending));
}

nb::tuple tensors_of(DispatchResult&& result, nb::object event) {
  Exporter const& exporter = result.exporter;
  Dispatched const& value = result.value;
  return nb::make_tuple(exporter(value.x), exporter(value.scales), exporter(value.topk_idx),
                        exporter(value.topk_weights), nb::cast(value.tokens_per_expert),
                        nb::cast(std::move(result.handle)), std::move(event));
}

nb::tuple tensors_of(CombineResult&& result, nb::object event) {
  return nb::make_tuple(result.exporter(result.value.x), result.exporter(result.value.topk_weights),
                        std::move(event));
}

namespace {

template <auto Member, typename Result>
nb::object tensor(Result const& self) {
  return self.exporter(self.value.*Member);
}

template <typename Value, typename Result>
auto bind_pending(nb::module_& module, char const* name) {
  using Pending = PendingResult<Value, Result>;
  return nb::class_<Pending>(module, name)
      .def_prop_ro("event", [](Pending const& self) { return self.event; })
      .def("early", [](Pending const& self) { return early_result(self); })
      .def("get", [](Pending const& self) { return with_value(self, get(self)); });
}

void bind_dispatched(nb::module_& module) {
  nb::class_<DispatchResult>(module, "DispatchResult",
                             "The result of a dispatch: the properties of switchyard.Dispatched, and recv_counts: "
                             "what the CUDA engine counts in GPU memory, [R, 1 + most local experts of a rank] "
                             "int32: from each rank the rows (flat layout only), then the rows for each local "
                             "expert. None on the CPU engine, and after a dispatch in rounds.")
      .def_prop_ro("x", &tensor<&Dispatched::x, DispatchResult>)
      .def_prop_ro("scales", &tensor<&Dispatched::scales, DispatchResult>)
      .def_prop_ro("topk_idx", &tensor<&Dispatched::topk_idx, DispatchResult>)
      .def_prop_ro("topk_weights", &tensor<&Dispatched::topk_weights, DispatchResult>)
      .def_prop_ro("source_token", &tensor<&Dispatched::source_token, DispatchResult>)
      .def_prop_ro("tokens_per_expert", [](DispatchResult const& self) { return self.value.tokens_per_expert; })
      .def_prop_ro("recv_counts",
                   [](DispatchResult const& self) { return self.exporter(self.value.handle.recv_counts()); })
      .def_prop_ro("handle", [](DispatchResult const& self) { return self.handle; });
  bind_pending<Dispatched, DispatchResult>(module, "PendingDispatch")
      .def_prop_ro("handle", [](PendingDispatch const& self) { return self.result.handle; });
}

void bind_combined(nb::module_& module) {
  nb::class_<CombineResult>(module, "CombineResult",
                            "The result of a combine: the properties of switchyard.Combined.")
      .def_prop_ro("x", &tensor<&Combined::x, CombineResult>)
      .def_prop_ro("topk_weights", &tensor<&Combined::topk_weights, CombineResult>);
  bind_pending<Combined, CombineResult>(module, "PendingCombine");
}

// ---- tokens: handles as tensors, since operators of torch.library take and return only tensors ----

// The handles of living tokens, by number. Any thread may free a token.
class Registry {
 public:
  static Registry& get() {
    static auto* const registry = new Registry;  // never freed: tokens may outlive static objects
    return *registry;
  }
  std::int64_t add(DispatchHandle const& handle) {
    std::lock_guard const lock(mutex_);
    handles_.emplace(++latest_, handle);
    return latest_;
  }
  void remove(std::int64_t number) {
    std::lock_guard const lock(mutex_);
    handles_.erase(number);
  }
  std::optional<DispatchHandle> find(std::int64_t number) {
    std::lock_guard const lock(mutex_);
    auto const found = handles_.find(number);
    return found == handles_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::mutex mutex_;
  std::map<std::int64_t, DispatchHandle> handles_;
  std::int64_t latest_ = 0;
};

// The memory of a token holds the number of the handle. Freeing it releases the handle.
struct Token {
  explicit Token(DispatchHandle const& handle) : number(Registry::get().add(handle)) {}
  ~Token() { Registry::get().remove(number); }
  Token(Token const&) = delete;
  Token& operator=(Token const&) = delete;
  std::int64_t number;
};

nb::object token_of(DispatchHandle const& handle, nb::handle like) {
  auto const token = std::make_shared<Token>(handle);
  return Exporter(like)(Tensor(TensorView(&token->number, DType::i64, {1}), token));
}

DispatchHandle handle_of(std::int64_t number) {
  auto found = Registry::get().find(number);
  if (!found)
    throw Unusable(
        "handle: the token of a dispatch is gone; keep the tensor that the dispatch returned, not a copy");
  return *std::move(found);
}

void bind_tokens(nb::module_& module) {
  module.def("handle_token", &token_of, nb::arg("handle"), nb::arg("like"));
  module.def("handle_of_token", &handle_of, nb::arg("number"));
}

}  // namespace

void bind_results(nb::module_& module) {
  bind_handle(module);
  bind_tokens(module);
  bind_dispatched(module);
  bind_combined(module);
}

}  // namespace switchyard::python
