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
  // What opens a call has a place for even and one for odd epochs: a rank may open a call while others still read
  // what opened the one before.
  [[nodiscard]] Announce& announce(int owner, int writer, std::uint64_t epoch) const {
    return part<Announce>(owner, layout_.announces, place(writer, epoch));
  }
  [[nodiscard]] Answer& answer(int owner, int writer) const { return part<Answer>(owner, layout_.answers, writer); }
  [[nodiscard]] Flag& arrived(int owner, int writer) const { return part<Flag>(owner, layout_.arrived, writer); }
  [[nodiscard]] Flag& done(int owner, int writer) const { return part<Flag>(owner, layout_.done, writer); }
  [[nodiscard]] std::span<std::int64_t> counts(int owner, int writer, std::uint64_t epoch) const {
    return {row(owner, layout_.counts, layout_.slots, place(writer, epoch)), layout_.slots};
  }
  [[nodiscard]] std::span<std::int64_t> totals(int owner, int writer, std::uint64_t epoch) const {
    return {row(owner, layout_.totals, layout_.total_slots, place(writer, epoch)), layout_.ranks};
  }
  [[nodiscard]] std::span<std::int64_t> starts(int owner, int writer) const {
    return {row(owner, layout_.starts, layout_.slots, writer), layout_.slots};
  }

 private:
  [[nodiscard]] int place(int writer, std::uint64_t epoch) const {
    return static_cast<int>(epoch % 2 * layout_.ranks) + writer;
  }
  template <typename T>
  T& part(int owner, std::size_t offset, int index) const {
    return reinterpret_cast<T*>(heap_->control(owner) + offset)[index];
  }
  [[nodiscard]] std::int64_t* row(int owner, std::size_t offset, std::size_t width, int index) const {
    return reinterpret_cast<std::int64_t*>(heap_->control(owner) + offset) +
           static_cast<std::size_t>(index) * width;
  }

  std::shared_ptr<SymmetricHeap> heap_;
  ControlLayout layout_;
};

}  // namespace switchyard
