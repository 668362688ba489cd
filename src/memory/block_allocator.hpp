// First-fit allocation of ranges of [0, capacity): the bookkeeping of a symmetric heap. Low addresses are
// reused first, so that few pages are ever touched.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <optional>

namespace switchyard {

class BlockAllocator {
 public:
  explicit BlockAllocator(std::size_t capacity);

  // Offset of a free range, aligned to `granule`; nothing when no range is large enough. Zero bytes take one
  // granule, so that every block has an offset of its own.
  [[nodiscard]] std::optional<std::size_t> allocate(std::size_t bytes);
  void free(std::size_t offset) noexcept;
  // Makes a taken range shorter; what is behind is free again.
  void trim(std::size_t offset, std::size_t bytes);

  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] std::size_t used() const;
  [[nodiscard]] std::size_t peak() const;
  [[nodiscard]] std::size_t largest_free() const;

  // Blocks start on cache lines of their own, and on whole pages of the smallest kind.
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
