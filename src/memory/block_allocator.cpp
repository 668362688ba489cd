#include "memory/block_allocator.hpp"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <limits>

namespace switchyard {

BlockAllocator::BlockAllocator(std::size_t capacity) : capacity_(capacity / granule * granule) {
  if (capacity_ > 0) free_.emplace(0, capacity_);
}

std::optional<std::size_t> BlockAllocator::rounded(std::size_t bytes) noexcept {
  if (bytes > std::numeric_limits<std::size_t>::max() - granule) return std::nullopt;
  return std::max<std::size_t>((bytes + granule - 1) / granule, 1) * granule;
}

std::optional<std::size_t> BlockAllocator::allocate(std::size_t bytes) {
  auto const size = rounded(bytes);
  if (!size) return std::nullopt;
  std::lock_guard const lock(mutex_);
  auto const hole =
      std::find_if(free_.begin(), free_.end(), [&](auto const& range) { return range.second >= *size; });
  if (hole == free_.end()) return std::nullopt;
  auto const [offset, hole_bytes] = *hole;
  taken_.emplace(offset, *size);
  free_.erase(hole);
  if (hole_bytes > *size) free_.emplace(offset + *size, hole_bytes - *size);
  used_ += *size;
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
  release(std::move(block));
}

// The range, which nobody holds, joins the free ones around it.
void BlockAllocator::release(std::map<std::size_t, std::size_t>::node_type range) noexcept {
  std::size_t const offset = range.key();
  auto const after = free_.lower_bound(offset);
  if (after != free_.end() && offset + range.mapped() == after->first) {
    range.mapped() += after->second;
    free_.erase(after);
  }
  auto const next = free_.lower_bound(offset);
  if (next != free_.begin()) {
    auto const before = std::prev(next);
    if (before->first + before->second == offset) {
      before->second += range.mapped();
      return;
    }
  }
  free_.insert(std::move(range));
}

void BlockAllocator::extend(std::size_t capacity) {
  std::lock_guard const lock(mutex_);
  std::size_t const end = capacity / granule * granule;
  if (end <= capacity_) return;
  std::map<std::size_t, std::size_t> added{{capacity_, end - capacity_}};
  release(added.extract(added.begin()));
  capacity_ = end;
}

bool BlockAllocator::retract(std::size_t capacity) {
  std::lock_guard const lock(mutex_);
  std::size_t const end = capacity / granule * granule;
  if (end >= capacity_ || end_of_taken() > end) return end >= capacity_;
  // What is not taken is free, so the last free range reaches to the end.
  auto const last = std::prev(free_.end());
  if (last->first >= end) {
    free_.erase(last);
  } else {
    last->second = end - last->first;
  }
  capacity_ = end;
  return true;
}

std::size_t BlockAllocator::end_of_taken() const {
  return taken_.empty() ? 0 : taken_.rbegin()->first + taken_.rbegin()->second;
}

std::size_t BlockAllocator::capacity() const {
  std::lock_guard const lock(mutex_);
  return capacity_;
}

std::size_t BlockAllocator::missing(std::size_t bytes) const {
  std::lock_guard const lock(mutex_);
  for (auto const& [offset, free] : free_)
    if (free >= bytes) return 0;
  return bytes - (capacity_ - end_of_taken());
}

std::optional<std::size_t> BlockAllocator::block_at(std::size_t offset) const {
  std::lock_guard const lock(mutex_);
  auto const behind = taken_.upper_bound(offset);
  if (behind == taken_.begin()) return std::nullopt;
  auto const [begin, bytes] = *std::prev(behind);
  return offset - begin < bytes ? std::optional(begin) : std::nullopt;
}

void BlockAllocator::for_each_free(std::function<void(std::size_t, std::size_t)> const& use) const {
  std::lock_guard const lock(mutex_);
  for (auto const& [offset, bytes] : free_) use(offset, bytes);
}

bool BlockAllocator::split(std::size_t offset, std::size_t bytes) {
  std::lock_guard const lock(mutex_);
  auto const block = taken_.find(offset);
  assert(block != taken_.end() && bytes > 0 && bytes % granule == 0 && bytes <= block->second && "split elsewhere");
  if (block == taken_.end() || bytes >= block->second) return false;
  taken_.emplace(offset + bytes, block->second - bytes);  // this is the one step that can fail, so it comes first
  block->second = bytes;
  return true;
}

void BlockAllocator::trim(std::size_t offset, std::size_t bytes) {
  std::size_t const size = std::max<std::size_t>((bytes + granule - 1) / granule, 1) * granule;
  if (split(offset, size)) free(offset + size);
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
