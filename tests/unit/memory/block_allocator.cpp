// BlockAllocator against a map of its granules, one by one; trim above all.
#include "memory/block_allocator.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "support/check.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t granule = BlockAllocator::granule;

std::size_t granules_of(std::size_t bytes) {
  return bytes == 0 ? 1 : (bytes + granule - 1) / granule;
}

// One flag a granule: slow and obvious.
class Reference {
 public:
  explicit Reference(std::size_t granules) : taken_(granules, false) {}

  std::optional<std::size_t> allocate(std::size_t bytes) {
    std::size_t const size = granules_of(bytes);
    for (std::size_t at = 0; at + size <= taken_.size(); ++at) {
      if (run_from(at) < size) continue;
      mark(at, size, true);
      peak_ = std::max(peak_, used());
      return at * granule;
    }
    return std::nullopt;
  }
  void free(std::size_t offset, std::size_t bytes) { mark(offset / granule, granules_of(bytes), false); }
  void trim(std::size_t offset, std::size_t from_bytes, std::size_t to_bytes) {
    std::size_t const kept = granules_of(to_bytes);
    mark(offset / granule + kept, granules_of(from_bytes) - kept, false);
  }
  [[nodiscard]] std::size_t used() const {
    return static_cast<std::size_t>(std::ranges::count(taken_, true)) * granule;
  }
  [[nodiscard]] std::size_t peak() const { return peak_; }
  [[nodiscard]] std::size_t largest_free() const {
    std::size_t largest = 0;
    for (std::size_t at = 0; at < taken_.size(); ++at) largest = std::max(largest, run_from(at));
    return largest * granule;
  }

 private:
  // Free granules from here on.
  [[nodiscard]] std::size_t run_from(std::size_t at) const {
    std::size_t end = at;
    while (end < taken_.size() && !taken_[end]) ++end;
    return end - at;
  }
  void mark(std::size_t at, std::size_t size, bool taken) {
    for (std::size_t i = at; i < at + size; ++i) {
      ASSERT_NE(taken_[i], taken) << "granule " << i;
      taken_[i] = taken;
    }
  }

  std::vector<bool> taken_;
  std::size_t peak_ = 0;
};

// An allocator and its reference, which go through the same steps.
class Pair {
 public:
  explicit Pair(std::size_t granules) : tested_(granules * granule), reference_(granules) {}

  void allocate(std::size_t bytes) {
    auto const offset = tested_.allocate(bytes);
    ASSERT_EQ(offset, reference_.allocate(bytes));
    if (offset) blocks_.push_back({*offset, bytes});
  }
  void free(std::size_t index) {
    tested_.free(blocks_[index].offset);
    reference_.free(blocks_[index].offset, blocks_[index].bytes);
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(index));
  }
  void trim(std::size_t index, std::size_t bytes) {
    tested_.trim(blocks_[index].offset, bytes);
    reference_.trim(blocks_[index].offset, blocks_[index].bytes, bytes);
    blocks_[index].bytes = bytes;
  }
  void step(Random& random) {
    std::int64_t const count = static_cast<std::int64_t>(blocks_.size());
    int const kind = count == 0 ? 0 : random.between(0, 3);
    if (kind <= 1) return allocate(static_cast<std::size_t>(random.between(0, 12 * static_cast<int>(granule))));
    auto const index = static_cast<std::size_t>(random.below(count));
    if (kind == 2) return free(index);
    trim(index, static_cast<std::size_t>(random.below(static_cast<std::int64_t>(blocks_[index].bytes) + 1)));
  }
  void check_state() const {
    EXPECT_EQ(tested_.used(), reference_.used());
    EXPECT_EQ(tested_.peak(), reference_.peak());
    EXPECT_EQ(tested_.largest_free(), reference_.largest_free());
  }
  void free_all() {
    while (!blocks_.empty()) free(blocks_.size() / 2);
  }
  [[nodiscard]] BlockAllocator const& tested() const { return tested_; }

 private:
  struct Block {
    std::size_t offset;
    std::size_t bytes;  // asked for
  };

  BlockAllocator tested_;
  Reference reference_;
  std::vector<Block> blocks_;
};

TEST(BlockAllocator, RandomStepsMatchTheReference) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(fresh_seed());
  for (int round = 0; round < 50; ++round) {
    auto const granules = static_cast<std::size_t>(random.between(1, 100));
    Pair pair(granules);
    for (int i = 0; i < 200; ++i) {
      SCOPED_TRACE(text("round ", round, " granules ", granules, " step ", i));
      pair.step(random);
      pair.check_state();
      if (HasFailure()) return;
    }
    pair.free_all();
    EXPECT_EQ(pair.tested().used(), 0U);
    EXPECT_EQ(pair.tested().largest_free(), granules * granule) << "all is one hole again";
  }
}

TEST(BlockAllocator, TrimGivesBackWhatIsBehind) {
  BlockAllocator allocator(8 * granule);
  auto const first = allocator.allocate(6 * granule);
  auto const second = allocator.allocate(2 * granule);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(allocator.allocate(1), std::nullopt);
  allocator.trim(*first, 2 * granule + 1);
  EXPECT_EQ(allocator.used(), 5 * granule) << "3 stay of the first: a part of a granule is a whole one";
  EXPECT_EQ(allocator.peak(), 8 * granule);
  EXPECT_EQ(allocator.allocate(3 * granule), *first + 3 * granule);
}

TEST(BlockAllocator, WhatTrimGivesBackJoinsTheHoleBehind) {
  BlockAllocator allocator(8 * granule);
  auto const block = allocator.allocate(4 * granule);
  ASSERT_TRUE(block);
  allocator.trim(*block, granule);
  EXPECT_EQ(allocator.largest_free(), 7 * granule);
  allocator.free(*block);
  EXPECT_EQ(allocator.largest_free(), 8 * granule);
}

TEST(BlockAllocator, TrimToNothingKeepsAGranule) {
  BlockAllocator allocator(4 * granule);
  auto const block = allocator.allocate(3 * granule);
  ASSERT_TRUE(block);
  allocator.trim(*block, 0);
  EXPECT_EQ(allocator.used(), granule);
  EXPECT_NE(allocator.allocate(0), block) << "the block still has an offset of its own";
}

TEST(BlockAllocator, TrimWithinTheLastGranuleChangesNothing) {
  BlockAllocator allocator(4 * granule);
  auto const block = allocator.allocate(2 * granule);
  ASSERT_TRUE(block);
  allocator.trim(*block, granule + 1);
  EXPECT_EQ(allocator.used(), 2 * granule);
  EXPECT_EQ(allocator.largest_free(), 2 * granule);
}

}  // namespace
}  // namespace switchyard::test
