// Allocates ranges of [0, capacity), first fit: the bookkeeping of a symmetric heap. Low addresses are reused
// first, so that few pages are ever touched. Any thread may call it.
#pragma once

#include <cstddef>
#include <functional>
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
  // Where the taken range begins that `offset` lies in; nothing when it lies in none.
  [[nodiscard]] std::optional<std::size_t> block_at(std::size_t offset) const;
  // Calls `use` for each free range, of `offset` and bytes. Nothing is allocated or freed meanwhile.
  void for_each_free(std::function<void(std::size_t, std::size_t)> const& use) const;
  // Makes two taken ranges of one: `bytes`, a multiple of `granule`, and what is behind. Both are freed apart.
  // Returns false when nothing is behind.
  [[nodiscard]] bool split(std::size_t offset, std::size_t bytes);
  // Makes a taken range shorter and frees what is behind it.
  void trim(std::size_t offset, std::size_t bytes);

  // There are more bytes behind those of now.
  void extend(std::size_t capacity);
  // There are no more bytes from `capacity` on, if none of them is taken. Returns whether it is so.
  [[nodiscard]] bool retract(std::size_t capacity);

  [[nodiscard]] std::size_t capacity() const;
  [[nodiscard]] std::size_t used() const;
  [[nodiscard]] std::size_t peak() const;
  [[nodiscard]] std::size_t largest_free() const;
  // How many more bytes at the end would make room for `bytes`; 0: there is room.
  [[nodiscard]] std::size_t missing(std::size_t bytes) const;

  // What a block of so many bytes takes; nothing when they are more than there are addresses.
  [[nodiscard]] static std::optional<std::size_t> rounded(std::size_t bytes) noexcept;

  // Bytes. Every block starts on a page of the smallest kind, and so on a cache line of its own.
  static constexpr std::size_t granule = 4096;

 private:
  void release(std::map<std::size_t, std::size_t>::node_type range) noexcept;
  [[nodiscard]] std::size_t end_of_taken() const;

  mutable std::mutex mutex_;
  std::size_t capacity_;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
  std::map<std::size_t, std::size_t> free_;   // offset -> bytes, never adjacent
  std::map<std::size_t, std::size_t> taken_;  // offset -> bytes
};

}  // namespace switchyard
