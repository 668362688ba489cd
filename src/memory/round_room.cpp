#include "memory/round_room.hpp"

#include <algorithm>
#include <optional>

#include "layout/receive_block.hpp"

namespace switchyard {

namespace {

std::size_t share_of(std::size_t largest_free, std::size_t useful) {
  return align_up(std::min(largest_free - largest_free / 4, useful), BlockAllocator::granule);
}

}  // namespace

detail::RoundRoom RoundRooms::take(SymmetricHeap& heap, std::size_t useful) {
  detail::RoundRoom kept = latest_;
  kept.owner = owner_.lock();
  std::size_t const share = share_of(heap.allocator().largest_free(), useful);
  if (kept.owner && kept.bytes >= share) return kept;
  std::optional<SymmetricHeap::Block> block;
  if (share > 0) block = heap.allocate(share);  // nothing, if another thread of the caller's was faster
  if (!block && kept.owner) return kept;
  // A rank that receives no rows needs no more than an address.
  if (!block) return {.offset = 0, .data = heap.heap(heap.rank()), .bytes = 0};
  latest_ = {.offset = block->offset, .data = block->data, .bytes = share};
  owner_ = block->owner;
  return {.offset = block->offset, .data = block->data, .bytes = share, .owner = block->owner};
}

}  // namespace switchyard
