// Division by multiplication, as kernels do it, against division.
#include "engine/cuda/device/expert_owners.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

#include "layout/experts.hpp"

namespace switchyard::cuda {
namespace {

TEST(QuickDivisor, DividesAllSmallNumbers) {
  for (std::uint32_t divisor = 1; divisor <= 300; ++divisor) {
    QuickDivisor const by(divisor);
    for (std::uint32_t n = 0; n < 5000; ++n) ASSERT_EQ(by.of(n), n / divisor) << n << " / " << divisor;
  }
}

TEST(QuickDivisor, DividesWhateverHasAProductBelowTwoTo32) {
  unsigned const seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 generator(seed);
  auto const random = [&generator] { return static_cast<std::uint32_t>(generator()); };
  for (int i = 0; i < 1'000'000; ++i) {
    // All magnitudes alike.
    std::uint32_t const divisor = (random() >> (random() % 32)) | 1U;
    std::uint32_t const most = 0xffffffffU / divisor;
    std::uint32_t const n = i % 4 == 0 ? most : most == 0xffffffffU ? random() : random() % (most + 1);
    ASSERT_EQ(QuickDivisor(divisor).of(n), n / divisor) << n << " / " << divisor;
  }
}

TEST(ExpertOwners, AgreeWithTheSplit) {
  for (int const world : {1, 2, 3, 7, 8, 16, 64}) {
    for (int const experts : {1, 2, 5, 8, 60, 63, 64, 65, 255, 256, 1000, 8191}) {
      ExpertSplit const split(experts, world);
      ExpertOwners const owners(split, world);
      for (int expert = 0; expert < experts; ++expert)
        ASSERT_EQ(owners.rank_of(expert), split.rank_of(expert)) << expert << " of " << experts << " on " << world;
    }
  }
}

}  // namespace
}  // namespace switchyard::cuda
