// The segments of all ranks of a node, each a control block followed by a heap. This rank allocates from its own
// heap and addresses those of all. Any thread may allocate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "memory/block_allocator.hpp"
#include "memory/block_readers.hpp"
#include "memory/segment.hpp"
#include "memory/stream_uses.hpp"

namespace switchyard {

// Grows and shrinks this rank's own segment, for all ranks that map it. One thread at a time calls it.
class HeapGrowth {
 public:
  HeapGrowth() = default;
  virtual ~HeapGrowth() = default;
  HeapGrowth(HeapGrowth const&) = delete;
  HeapGrowth& operator=(HeapGrowth const&) = delete;

  // Returns once every rank that is there has mapped `bytes` more, or a few more than that. Throws OutOfMemory, or
  // what a peer failed on; then the segment is as before.
  virtual void grow(std::size_t bytes) = 0;
  // Unmaps what was added at `bytes` of the segment and behind. Nobody uses it any more.
  virtual void shrink(std::size_t bytes) = 0;
  // Bytes that could be had without taking more than a small part of what others may want.
  [[nodiscard]] virtual std::size_t spare() const = 0;
};

// What a heap in GPU memory has besides.
struct HeapTools {
  std::unique_ptr<HeapGrowth> growth{};  // without it the heap stays as it is
  std::function<std::unique_ptr<StreamFence>(std::span<std::uintptr_t const> streams)> fence{};
};

class SymmetricHeap : public std::enable_shared_from_this<SymmetricHeap>, private StreamUses {
 public:
  struct Block {
    std::size_t offset = 0;  // in the heap
    std::byte* data = nullptr;
    std::shared_ptr<void> owner;  // frees the block, and keeps the heap mapped until then
  };

  // segments[rank] is this rank's own. control_bytes is the same on all ranks.
  SymmetricHeap(std::vector<std::shared_ptr<Segment>> segments, int rank, std::size_t control_bytes,
                HeapTools tools = {});
  // Waits for what still reads released blocks, and for what the caller's one stream reads.
  ~SymmetricHeap() override;

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int num_ranks() const noexcept { return static_cast<int>(segments_.size()); }
  [[nodiscard]] std::byte* control(int rank) const noexcept { return segment(rank).data(); }
  [[nodiscard]] std::byte* heap(int rank) const noexcept { return segment(rank).data() + control_bytes_; }
  // What is mapped of a rank's heap, and what it may grow to.
  [[nodiscard]] std::size_t heap_bytes(int rank) const noexcept { return segment(rank).bytes() - control_bytes_; }
  [[nodiscard]] std::size_t heap_capacity(int rank) const noexcept {
    return segment(rank).capacity() - control_bytes_;
  }

  // Returns nothing when the own heap has no free range of that size.
  [[nodiscard]] std::optional<Block> allocate(std::size_t bytes);
  // Lets the heap grow when it has no free range of that size. Returns nothing when there is no memory for that.
  [[nodiscard]] std::optional<Block> allocate_growing(std::size_t bytes);
  // Lets it grow only if that leaves most of the free memory to others.
  [[nodiscard]] std::optional<Block> allocate_from_spare(std::size_t bytes);
  // Makes the own heap at least so large. Returns false when it cannot.
  [[nodiscard]] bool grow_to(std::size_t bytes);
  // Gives back memory that nothing lies in: of a heap that grows what it grew by, from its end on; of others free
  // pages. Returns by how many bytes the heap has become smaller.
  std::size_t give_back();

  // See BlockReaders.
  std::optional<std::uintptr_t> note_caller(std::uintptr_t stream) { return readers_.note_caller(stream); }
  [[nodiscard]] bool is_only_caller(std::uintptr_t stream) const { return readers_.is_only_caller(stream); }

  // Makes a block of the own heap end after `bytes`, a multiple of the allocator's granule, and returns what is
  // behind as a block of its own; nothing when there is nothing.
  [[nodiscard]] std::optional<Block> split(Block const& block, std::size_t bytes);
  // Makes a block of the own heap shorter.
  void trim(Block const& block, std::size_t bytes) { allocator_.trim(block.offset, bytes); }
  // The offset of a range that lies in the own heap; nothing when it does not, or does only partly.
  [[nodiscard]] std::optional<std::size_t> offset_of(void const* data, std::size_t bytes) const noexcept;
  [[nodiscard]] BlockAllocator const& allocator() const noexcept { return allocator_; }

 private:
  [[nodiscard]] Segment& segment(int rank) const noexcept { return *segments_[static_cast<std::size_t>(rank)]; }
  bool note(std::byte const* at, std::uintptr_t stream) noexcept override;
  [[nodiscard]] Block owned(std::size_t offset);
  void release(std::size_t offset) noexcept;
  struct Looked {
    std::size_t freed;
    std::size_t left;
  };
  Looked free_what_has_passed() noexcept;
  bool wait_for_readers();
  bool caller_has_read();
  bool grow(std::size_t least);
  enum class Growth : std::uint8_t { done, no_memory, refused };
  Growth try_to_grow(std::size_t bytes);

  std::vector<std::shared_ptr<Segment>> segments_;
  int rank_;
  std::size_t control_bytes_;
  BlockAllocator allocator_;
  std::mutex growing_;               // guards what follows
  std::vector<std::size_t> before_;  // size of the heap before each growth that was not given back
  HeapTools tools_;

  BlockReaders readers_;  // by offset
  struct Released {
    std::size_t offset;
    std::unique_ptr<StreamFence> fence;
  };
  std::mutex reading_;              // guards what follows
  std::vector<Released> released_;  // blocks that may still be read

  StreamUses::Entry entry_{*this};  // last: notes come between its construction and its destruction
};

}  // namespace switchyard
