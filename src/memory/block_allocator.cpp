#include "memory/block_allocator.hpp"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <limits>

namespace switchyard {

BlockAllocator::BlockAllocator(std::size_t capacity) : capacity_(capacity / granule * granule) {
  if (capacity_ > 0) free_.emplace(0, capacity_);
}

std::optional<std::size_t> BlockAllocator::allocate(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() - granule) return std::nullopt;
  std::size_t const size = std::max<std::size_t>((bytes + granule - 1) / granule, 1) * granule;
  std::lock_guard const lock(mutex_);
  auto const hole =
      std::find_if(free_.begin(), free_.end(), [&](auto const& range) { return range.second >= size; });
  if (hole == free_.end()) return std::nullopt;
  auto const [offset, hole_bytes] = *hole;
  taken_.emplace(offset, size);
  free_.erase(hole);
  if (hole_bytes > size) free_.emplace(offset + size, hole_bytes - size);
  used_ += size;
  peak_ = std::max(peak_, used_);
  return offset;
}

void BlockAllocator::free(std::size_t offset) noexcept {
  std::lock_guard const lock(mutex_);
  // The node moves from one map to the other. Nothing is allocated, so nothing can fail.
  auto block = taken_.extract(offset);
  assert(!block.empty() && "freed what was never allocated");
  if (block.empty()) return;
  used_ -= block.mapped();
  auto const after = free_.lower_bound(offset);
  if (after != free_.end() && offset + block.mapped() == after->first) {
    block.mapped() += after->second;
    free_.erase(after);
  }
  auto const next = free_.lower_bound(offset);
  if (next != free_.begin()) {
    auto const before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += block.mapped();
      return;
    }
  }
  free_.insert(std::move(block));
}

void BlockAllocator::trim(std::size_t offset, std::size_t bytes) {
  std::size_t const size = std::max<std::size_t>((bytes + granule - 1) / granule, 1) * granule;
  std::size_t rest = 0;
  {
    std::lock_guard const lock(mutex_);
    auto const block = taken_.find(offset);
    assert(block != taken_.end() && size <= block->second && "trimmed to more than there was");
    if (block == taken_.end() || size >= block->second) return;
    rest = block->second - size;
    taken_.emplace(offset + size, rest);  // this is the one step that can fail, so it comes first
    block->second = size;
  }
  free(offset + size);
}

std::size_t BlockAllocator::used() const {
  std::lock_guard const lock(mutex_);
  return used_;
}

std::size_t BlockAllocator::peak() const {
  std::lock_guard const lock(mutex_);
  return peak_;
}

std::size_t BlockAllocator::largest_free() const {
  std::lock_guard const lock(mutex_);
  std::size_t largest = 0;
  for (auto const& [offset, bytes] : free_) largest = std::max(largest, bytes);
  return largest;
}

}  // namespace switchyard
