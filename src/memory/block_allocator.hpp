// Allocates ranges of [0, capacity), first fit: the bookkeeping of a symmetric heap. Low addresses are reused
// first, so that few pages are ever touched. Any thread may call it.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>

namespace switchyard {

class BlockAllocator {
 public:
  explicit BlockAllocator(std::size_t capacity);

  // Takes a free range and returns its offset, a multiple of `granule`; nothing when no range is large enough. Zero
  // bytes take one granule, so that every block has an offset of its own.
  [[nodiscard]] std::optional<std::size_t> allocate(std::size_t bytes);
  void free(std::size_t offset) noexcept;
  // Makes a taken range shorter and frees what is behind it.
  void trim(std::size_t offset, std::size_t bytes);

  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] std::size_t used() const;
  [[nodiscard]] std::size_t peak() const;
  [[nodiscard]] std::size_t largest_free() const;

  // Bytes. Every block starts on a page of the smallest kind, and so on a cache line of its own.
  static constexpr std::size_t granule = 4096;

 private:
  mutable std::mutex mutex_;
  std::size_t capacity_;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
  std::map<std::size_t, std::size_t> free_;   // offset -> bytes, never adjacent
  std::map<std::size_t, std::size_t> taken_;  // offset -> bytes
};

}  // namespace switchyard
