// Floating-point formats against values worked out by hand: a wrong ruler measures nothing.
#include "oracle/numbers.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace switchyard::oracle {
namespace {

void expect_codes_survive(Format format, std::uint32_t codes) {
  for (std::uint32_t code = 0; code < codes; ++code) {
    float const value = decode(code, format);
    EXPECT_EQ(encode(value, format), code);
  }
}

TEST(Numbers, CodesSurviveDecodingAndEncoding) {
  expect_codes_survive(f16_format, 0x7c00);
  expect_codes_survive(bf16_format, 0x7f80);
  expect_codes_survive(e4m3_format, 0x7f);
}

TEST(Numbers, RoundsToNearestEven) {
  EXPECT_EQ(encode(1.0F + 0x1p-8F, bf16_format), 0x3f80U);      // tie to even: down
  EXPECT_EQ(encode(1.0F + 3 * 0x1p-8F, bf16_format), 0x3f82U);  // tie to even: up
  EXPECT_EQ(encode(1.0F + 0x1.01p-8F, bf16_format), 0x3f81U);   // above the tie
  EXPECT_EQ(encode(1.0F + 0x1p-8F + 0x1p-20F, bf16_format), 0x3f81U);
  EXPECT_EQ(encode(-65504.0F, f16_format), 0xfbffU);  // largest
  EXPECT_EQ(encode(65520.0F, f16_format), 0x7c00U);   // rounds to infinity
  EXPECT_EQ(encode(0x1p-25F, f16_format), 0U);        // half the smallest: tie to even
  EXPECT_EQ(encode(0x1.8p-24F, f16_format), 2U);      // subnormal tie: up to even
  EXPECT_EQ(encode(448.0F, e4m3_format), 0x7eU);
  EXPECT_EQ(encode(-1e9F, e4m3_format), 0xfeU);                       // saturates
  EXPECT_EQ(encode(0x1p-9F, e4m3_format), 1U);                        // smallest subnormal
  EXPECT_EQ(encode(17.0F, e4m3_format), encode(16.0F, e4m3_format));  // tie to even
}

float e4m3_value(int code) {
  int const exponent = code >> 3 & 0xf;
  int const mantissa = code & 7;
  float const magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                        : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

std::uint32_t to_e4m3(float value) {
  return encode(value, e4m3_format);
}

TEST(Fp8, EveryCodeStandsForItself) {
  for (int code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) continue;  // NaN
    EXPECT_EQ(to_e4m3(e4m3_value(code)), static_cast<std::uint32_t>(code));
    EXPECT_EQ(decode(static_cast<std::uint32_t>(code), e4m3_format), e4m3_value(code));
  }
}

TEST(Fp8, RoundsToNearestEven) {
  for (std::uint32_t code = 0; code < 0x7e; ++code) {
    auto const below = static_cast<int>(code);
    float const middle = (e4m3_value(below) + e4m3_value(below + 1)) / 2;
    EXPECT_EQ(to_e4m3(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(to_e4m3(std::nextafter(middle, 0.0F)), code);
    EXPECT_EQ(to_e4m3(std::nextafter(middle, 1000.0F)), code + 1);
  }
}

TEST(Fp8, SaturatesAndKeepsNaN) {
  float const infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(to_e4m3(1e6F), 0x7eU);
  EXPECT_EQ(to_e4m3(-infinity), 0xfeU);
  EXPECT_EQ(to_e4m3(std::nanf("")), 0x7fU);
  EXPECT_EQ(to_e4m3(-std::nanf("")), 0xffU);
}

}  // namespace
}  // namespace switchyard::oracle
