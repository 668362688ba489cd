// The benchmark's data and its scalar references.
#include "oracle/payload.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "oracle/fp8_reference.hpp"

namespace switchyard::cli {
namespace {

float e4m3_value(int code) {
  int const exponent = code >> 3 & 0xf;
  int const mantissa = code & 7;
  float const magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

TEST(Fp8Reference, EveryCodeStandsForItself) {
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) continue;  // NaN
    EXPECT_EQ(float_to_e4m3(e4m3_value(code)), code);
  }
}

TEST(Fp8Reference, RoundsToNearestEven) {
  for (int code = 0; code < 0x7e; ++code) {
    float const middle = (e4m3_value(code) + e4m3_value(code + 1)) / 2;
    EXPECT_EQ(float_to_e4m3(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(float_to_e4m3(std::nextafter(middle, 0.0F)), code);
    EXPECT_EQ(float_to_e4m3(std::nextafter(middle, 1000.0F)), code + 1);
  }
}

TEST(Fp8Reference, SaturatesAndKeepsNaN) {
  float const infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(float_to_e4m3(1e6F), 0x7e);
  EXPECT_EQ(float_to_e4m3(-infinity), 0xfe);
  EXPECT_EQ(float_to_e4m3(std::nanf("")), 0x7f);
  EXPECT_EQ(float_to_e4m3(-std::nanf("")), 0xff);
}

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
  std::vector<std::uint16_t> row(1000);
  fill_expert_output(problem, {.maker = 3, .expert = 1, .token = {2, 17}}, row);
  for (auto const bits : row) {
    float const value = bf16_to_float(bits);
    EXPECT_LT(std::fabs(value), 2.0F);
    EXPECT_GE(std::fabs(value), 0x1p-7F);
    EXPECT_EQ(float_to_bf16(value), bits);
  }
}

TEST(Payload, Bf16RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(1.0F), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0F + 0x1p-8F), 0x3f80);
  EXPECT_EQ(float_to_bf16(1.0F + 3 * 0x1p-8F), 0x3f82);
  EXPECT_EQ(float_to_bf16(1.0F + 0x1p-8F + 0x1p-20F), 0x3f81);
}

}  // namespace
}  // namespace switchyard::cli
