// The segments of all ranks of a node, each a control block followed by a heap. This rank allocates from its own
// heap and addresses those of all. Any thread may allocate.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "memory/block_allocator.hpp"
#include "memory/segment.hpp"

namespace switchyard {

class SymmetricHeap : public std::enable_shared_from_this<SymmetricHeap> {
 public:
  struct Block {
    std::size_t offset = 0;  // in the heap
    std::byte* data = nullptr;
    std::shared_ptr<void> owner;  // frees the block, and keeps the heap mapped until then
  };

  // segments[rank] is this rank's own. control_bytes is the same on all ranks.
  SymmetricHeap(std::vector<std::shared_ptr<Segment>> segments, int rank, std::size_t control_bytes);

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int num_ranks() const noexcept { return static_cast<int>(segments_.size()); }
  [[nodiscard]] std::byte* control(int rank) const noexcept { return segment(rank).data(); }
  [[nodiscard]] std::byte* heap(int rank) const noexcept { return segment(rank).data() + control_bytes_; }
  [[nodiscard]] std::size_t heap_bytes(int rank) const noexcept { return segment(rank).bytes() - control_bytes_; }

  // Makes the own heap at least so large, for all ranks that map it. Returns false when it cannot.
  [[nodiscard]] bool grow_to(std::size_t bytes) { return heap_bytes(rank_) >= bytes; }
  // How large the heap of a rank may be by now, or become.
  [[nodiscard]] std::size_t most_heap_bytes(int rank) const noexcept { return heap_bytes(rank); }
  // Returns nothing when the own heap has no free range of that size.
  [[nodiscard]] std::optional<Block> allocate(std::size_t bytes);
  // Makes a block of the own heap shorter.
  void trim(Block const& block, std::size_t bytes) { allocator_.trim(block.offset, bytes); }
  // The offset of a range that lies in the own heap; nothing when it does not, or does only partly.
  [[nodiscard]] std::optional<std::size_t> offset_of(void const* data, std::size_t bytes) const noexcept;
  [[nodiscard]] BlockAllocator const& allocator() const noexcept { return allocator_; }

 private:
  [[nodiscard]] Segment& segment(int rank) const noexcept { return *segments_[static_cast<std::size_t>(rank)]; }

  std::vector<std::shared_ptr<Segment>> segments_;
  int rank_;
  std::size_t control_bytes_;
  BlockAllocator allocator_;
};

}  // namespace switchyard
