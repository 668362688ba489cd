// Memory that ranks share. A symmetric heap is made of such segments.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

#include "base/check.hpp"
#include "base/unique_fd.hpp"

namespace switchyard {

// A fabric handle, or one of CUDA IPC. Only the driver knows what is in it.
using GpuMemoryHandle = std::array<std::byte, 64>;

// Memory that a segment has grown by, as another process needs it to map it.
struct SegmentPart {
  std::size_t offset = 0;  // in the segment
  std::size_t bytes = 0;
  UniqueFd fd{};             // none where the handle stands for the memory
  GpuMemoryHandle handle{};  // all zero with a descriptor
};

// A segment that grows has addresses for more than is mapped, so that what lies in it never moves. One thread at a
// time grows it, or shrinks it; any may read meanwhile.
class Segment {
 public:
  virtual ~Segment() = default;
  Segment(Segment const&) = delete;
  Segment& operator=(Segment const&) = delete;

  // Where this process, or the GPU that it uses, sees the memory. Host code may dereference host segments only.
  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  // What is mapped. Acquire: pairs with the release store in set_bytes(), so who sees the size may use the memory.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_.load(std::memory_order_acquire); }
  // What there are addresses for. It stays the same.
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

  // Maps new memory behind what there is, `bytes` or a few more. Only for the segment's maker. Throws OutOfMemory,
  // and Unsupported where segments do not grow.
  virtual SegmentPart grow(std::size_t /*bytes*/) { throw Unsupported("this kind of memory does not grow"); }
  // Maps what the segment's maker, in another process, has grown it by.
  virtual void append(SegmentPart const& /*part*/) { throw Unsupported("this kind of memory does not grow"); }
  // Gives the pages of a range back to the machine, where they can be had again. What lay there is lost.
  virtual void discard(std::size_t /*offset*/, std::size_t /*bytes*/) {}
  // Unmaps the parts that begin at `bytes` or behind.
  virtual void shrink(std::size_t /*bytes*/) {}

 protected:
  Segment(std::size_t bytes, std::size_t capacity) : capacity_(capacity), bytes_(bytes) {}

  // Release: pairs with the acquire load in bytes().
  void set_bytes(std::size_t bytes) noexcept { bytes_.store(bytes, std::memory_order_release); }

  std::byte* data_ = nullptr;

 private:
  std::size_t capacity_;
  std::atomic<std::size_t> bytes_;
};

}  // namespace switchyard
