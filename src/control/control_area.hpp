// Typed access to the control blocks of the ranks of a node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "layout/control.hpp"
#include "memory/symmetric_heap.hpp"

namespace switchyard {

class ControlArea {
 public:
  ControlArea(std::shared_ptr<SymmetricHeap> heap, ControlLayout const& layout)
      : heap_(std::move(heap)), layout_(layout) {}

  // These lie in the control block of `owner`, where only `writer` writes them.
  [[nodiscard]] Announce& announce(int owner, int writer) const {
    return part<Announce>(owner, layout_.announces, writer);
  }
  [[nodiscard]] Answer& answer(int owner, int writer) const { return part<Answer>(owner, layout_.answers, writer); }
  [[nodiscard]] Flag& arrived(int owner, int writer) const { return part<Flag>(owner, layout_.arrived, writer); }
  [[nodiscard]] Flag& done(int owner, int writer) const { return part<Flag>(owner, layout_.done, writer); }
  [[nodiscard]] std::span<std::int64_t> counts(int owner, int writer) const {
    return row(owner, layout_.counts, writer);
  }
  [[nodiscard]] std::span<std::int64_t> starts(int owner, int writer) const {
    return row(owner, layout_.starts, writer);
  }

 private:
  template <typename T>
  T& part(int owner, std::size_t offset, int index) const {
    return reinterpret_cast<T*>(heap_->control(owner) + offset)[index];
  }
  std::span<std::int64_t> row(int owner, std::size_t offset, int index) const {
    auto* const matrix = reinterpret_cast<std::int64_t*>(heap_->control(owner) + offset);
    return {matrix + static_cast<std::size_t>(index) * layout_.slots, layout_.slots};
  }

  std::shared_ptr<SymmetricHeap> heap_;
  ControlLayout layout_;
};

}  // namespace switchyard
