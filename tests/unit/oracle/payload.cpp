// The benchmark's data.
#include "oracle/payload.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "oracle/numbers.hpp"

namespace switchyard::oracle {
namespace {

TEST(Payload, DependsOnRankTokenAndSeed) {
  Problem problem{.hidden = 33, .payload = Payload::bf16};
  auto const row = [&](int rank, std::int64_t token) {
    std::vector<std::byte> bytes(66);
    fill_token(problem, {rank, token}, bytes);
    return bytes;
  };
  auto const first = row(1, 2);
  EXPECT_EQ(first, row(1, 2));
  EXPECT_NE(first, row(2, 1));
  EXPECT_NE(first, row(1, 3));
  ++problem.seed;
  EXPECT_NE(first, row(1, 2));
}

TEST(Payload, ExpertOutputsAreExactInSums) {
  Problem const problem{.hidden = 1000};
  std::vector<std::byte> row(2000);
  fill_expert_output(problem, 3, {.source = 2, .token = 17, .expert = 1}, row);
  for (float const value : decode_row(row, DType::bf16)) {
    EXPECT_LT(std::fabs(value), 2.0F);
    EXPECT_GE(std::fabs(value), 0x1p-7F);
  }
}

}  // namespace
}  // namespace switchyard::oracle
