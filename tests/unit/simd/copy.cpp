// stream_copy() against memcpy, on every instruction set of this machine.
#include "engine/cpu/simd/targets.hpp"
// After simd_targets.hpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <random>
#include <thread>
#include <vector>

#include "engine/cpu/simd/kernels.hpp"
#include "hwy/highway.h"

namespace switchyard::cpu {
namespace {

constexpr std::size_t margin = 64;
constexpr std::byte margin_byte{0xa5};

class KernelsCopy : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { select(GetParam()); }
  void TearDown() override { select(0); }

  // 0: the best.
  static void select(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

void check_copy(std::size_t bytes, std::size_t from_shift, std::size_t to_shift, std::mt19937& random) {
  std::vector<std::byte> from(from_shift + bytes);
  for (std::byte& value : from) value = static_cast<std::byte>(random());
  std::vector<std::byte> to(margin + to_shift + bytes + margin, margin_byte);
  std::byte* const start = to.data() + margin + to_shift;
  stream_copy(start, from.data() + from_shift, bytes);
  store_fence();
  std::span const written(to);
  ASSERT_TRUE(std::ranges::equal(written.subspan(margin + to_shift, bytes), std::span(from).subspan(from_shift)))
      << bytes << " bytes, from +" << from_shift << " to +" << to_shift;
  auto const is_guard = [](std::byte value) { return value == margin_byte; };
  ASSERT_TRUE(std::ranges::all_of(written.first(margin + to_shift), is_guard)) << bytes;
  ASSERT_TRUE(std::ranges::all_of(written.last(margin), is_guard)) << bytes;
}

TEST_P(KernelsCopy, EverySmallSize) {
  std::mt19937 random(1);
  for (std::size_t bytes = 0; bytes <= 1500; ++bytes) check_copy(bytes, random() % 64, random() % 64, random);
}

TEST_P(KernelsCopy, EveryAlignment) {
  std::mt19937 random(2);
  for (std::size_t shift = 0; shift < 64; ++shift) {
    check_copy(14336, shift, 0, random);
    check_copy(14336, 0, shift, random);
    check_copy(14336 + shift, random() % 64, random() % 64, random);
  }
}

TEST_P(KernelsCopy, NothingFromNowhere) {
  stream_copy(nullptr, nullptr, 0);
}

// What was copied before the fence is seen by who sees the flag that was set after it.
TEST_P(KernelsCopy, FencePublishes) {
  constexpr std::uint32_t rounds = 200;
  std::vector<std::byte> shared(14336);
  std::atomic<std::uint32_t> written{0};
  std::atomic<std::uint32_t> seen{0};
  bool complete = true;
  std::thread reader([&] {
    for (std::uint32_t round = 1; round <= rounds; ++round) {
      while (written.load(std::memory_order_acquire) != round) std::this_thread::yield();
      complete = complete && std::ranges::count(shared, static_cast<std::byte>(round)) == std::ssize(shared);
      seen.store(round, std::memory_order_release);
    }
  });
  for (std::uint32_t round = 1; round <= rounds; ++round) {
    std::vector<std::byte> const row(shared.size(), static_cast<std::byte>(round));
    stream_copy(shared.data(), row.data(), row.size());
    store_fence();
    written.store(round, std::memory_order_release);
    while (seen.load(std::memory_order_acquire) != round) std::this_thread::yield();
  }
  reader.join();
  EXPECT_TRUE(complete);
}

INSTANTIATE_TEST_SUITE_P(Targets, KernelsCopy, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](auto const& target) { return hwy::TargetName(target.param); });

}  // namespace
}  // namespace switchyard::cpu
