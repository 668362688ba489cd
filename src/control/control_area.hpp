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
  // `served`: place of the source among the ranks that `writer` serves; 0: itself.
  [[nodiscard]] std::span<std::int64_t> counts(int owner, int writer, std::uint64_t epoch, int served = 0) const {
    return {row(owner, layout_.counts, layout_.slots, source(place(writer, epoch), served)), layout_.slots};
  }
  [[nodiscard]] std::span<std::int64_t> totals(int owner, int writer, std::uint64_t epoch) const {
    return {row(owner, layout_.totals, layout_.total_slots, place(writer, epoch)), layout_.ranks};
  }
  // `served`: place of the source among the ranks that `owner` serves.
  [[nodiscard]] std::span<std::int64_t> starts(int owner, int writer, int served = 0) const {
    return {row(owner, layout_.starts, layout_.slots, source(writer, served)), layout_.slots};
  }
  // Written by `owner` itself, of the ranks of other nodes that it serves: `served` from 1 on.
  [[nodiscard]] PassedOn& passed_on(int owner, int served, std::uint64_t epoch) const {
    int const others = static_cast<int>(layout_.served) - 1;
    return part<PassedOn>(owner, layout_.passed_on, static_cast<int>(epoch % 2) * others + served - 1);
  }

 private:
  [[nodiscard]] int place(int writer, std::uint64_t epoch) const {
    return static_cast<int>(epoch % 2 * layout_.ranks) + writer;
  }
  [[nodiscard]] int source(int place, int served) const {
    return place * static_cast<int>(layout_.served) + served;
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
