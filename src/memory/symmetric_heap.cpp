#include "memory/symmetric_heap.hpp"

#include <cstdint>

namespace switchyard {

SymmetricHeap::SymmetricHeap(std::vector<std::shared_ptr<Segment>> segments, int rank, std::size_t control_bytes)
    : segments_(std::move(segments)), rank_(rank), control_bytes_(control_bytes), allocator_(heap_bytes(rank)) {}

std::optional<SymmetricHeap::Block> SymmetricHeap::allocate(std::size_t bytes) {
  auto const offset = allocator_.allocate(bytes);
  if (!offset) return std::nullopt;
  std::byte* const data = heap(rank_) + *offset;
  // The deleter holds the heap, so a tensor may outlive the buffer that made it.
  std::shared_ptr<void> owner(data,
                              [heap = shared_from_this(), at = *offset](void*) { heap->allocator_.free(at); });
  return Block{.offset = *offset, .data = data, .owner = std::move(owner)};
}

std::optional<std::size_t> SymmetricHeap::offset_of(void const* data, std::size_t bytes) const noexcept {
  auto const at = reinterpret_cast<std::uintptr_t>(data);
  auto const base = reinterpret_cast<std::uintptr_t>(heap(rank_));
  std::size_t const size = heap_bytes(rank_);
  if (at < base || at - base > size || bytes > size - (at - base)) return std::nullopt;
  return at - base;
}

}  // namespace switchyard
