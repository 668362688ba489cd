// LogFMT-10 against its definition in double precision: levels, rounding, the bound of the error, and what is not a
// finite number.
#include "layout/logfmt.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "support/random.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

constexpr double slack = 0x1p-15;  // what the header allows beside the spacing of levels

using Codes = std::array<std::uint8_t, logfmt_tile_bytes>;

struct Coded {
  LogfmtScale scale;
  Codes codes{};
  std::vector<float> values;
};

Coded round_trip(std::vector<float> const& x) {
  Coded coded;
  coded.codes.fill(0xee);
  auto const count = static_cast<int>(x.size());
  coded.scale = logfmt_encode_tile(x.data(), count, coded.codes.data());
  coded.values.resize(x.size());
  logfmt_decode_tile(coded.scale, coded.codes.data(), coded.values.data(), count);
  return coded;
}

// The definition: logarithms of the least and greatest level of a tile.
struct Levels {
  double min = std::numeric_limits<double>::infinity();
  double max = -std::numeric_limits<double>::infinity();

  explicit Levels(std::vector<float> const& x) {
    for (float const v : x) {
      if (v == 0) continue;
      double const log = std::log2(std::fabs(static_cast<double>(v)));
      min = std::min(min, log);
      max = std::max(max, log);
    }
    if (max < min) min = max = 0;  // nothing but zeros
    min = std::max(min, max - 32);
  }
  [[nodiscard]] double step() const { return (max - min) / 510; }
  // How far the nearest level, or zero, is from a magnitude.
  [[nodiscard]] double nearest(double magnitude) const {
    double least = magnitude;
    double const place = step() > 0 ? (std::log2(magnitude) - min) / step() : 0;
    for (double const k : {std::floor(place), std::ceil(place)}) {
      double const level = std::exp2(min + step() * std::clamp(k, 0.0, 510.0));
      least = std::min(least, std::fabs(level - magnitude));
    }
    return least;
  }
};

void expect_as_defined(std::vector<float> const& x) {
  Levels const levels(x);
  Coded const coded = round_trip(x);
  EXPECT_NEAR(coded.scale.min, levels.min, 2e-5);
  EXPECT_NEAR(coded.scale.step, levels.step(), 4e-8 + 1e-6 * levels.step());
  double const bound = std::tanh(levels.step() * std::log(2.0) / 2) + slack;
  for (std::size_t i = 0; i < x.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "channel " << i << ": " << x[i] << " became " << coded.values[i]);
    double const magnitude = std::fabs(static_cast<double>(x[i]));
    double const error = std::fabs(static_cast<double>(coded.values[i]) - static_cast<double>(x[i]));
    double const rounding = slack * magnitude + 0x1p-149;
    EXPECT_EQ(std::signbit(coded.values[i]), std::signbit(x[i]));
    if (x[i] == 0) {
      EXPECT_EQ(coded.values[i], 0);
      continue;
    }
    EXPECT_LE(error, levels.nearest(magnitude) + rounding);
    bool const vanishing = std::log2(magnitude) < levels.min;
    EXPECT_LE(error, vanishing ? std::exp2(levels.min - 1) + rounding : bound * magnitude + 0x1p-149);
  }
}

double uniform(Random& random) {
  return static_cast<double>(random.between(0, 1 << 30)) / (1 << 30);
}

float signed_value(Random& random, double magnitude) {
  return static_cast<float>(random.between(0, 1) == 0 ? magnitude : -magnitude);
}

std::vector<float> tile(std::function<float(int)> const& value, int count = logfmt_tile) {
  std::vector<float> x;
  for (int i = 0; i < count; ++i) x.push_back(value(i));
  return x;
}

std::uint32_t code_of(Codes const& codes, std::size_t channel) {
  std::uint32_t const high = codes[logfmt_high_at + channel / 4] >> (2 * (channel % 4)) & 3U;
  return high << 8U | codes[channel];
}

TEST(LogFmt, SizesOfRows) {
  static_assert(logfmt_row_bytes(7168) == 56 * (160 + 8));
  static_assert(logfmt_row_bytes(128) == 176);
  static_assert(logfmt_row_bytes(1) == 176);
  static_assert(logfmt_row_bytes(129) % 16 == 0 && logfmt_row_bytes(129) >= 2 * 168);
  static_assert(logfmt_scales_at(7168) == 56 * 160);
}

TEST(LogFmt, LogarithmsOfAllBf16) {
  for (std::uint32_t bits = 0x10000; bits < logfmt::infinity_bits; bits += 0x10000) {
    double const log = std::log2(static_cast<double>(std::bit_cast<float>(bits)));
    ASSERT_NEAR(logfmt::log2(bits), log, 4e-7 + std::fabs(log) * 0x1p-24) << std::hex << bits;
  }
  for (int exponent = -149; exponent < 128; ++exponent) {
    float const power = std::ldexp(1.0F, exponent);
    ASSERT_EQ(logfmt::log2(std::bit_cast<std::uint32_t>(power)), static_cast<float>(exponent));
    ASSERT_EQ(logfmt::exp2(static_cast<float>(exponent)), power);
  }
}

TEST(LogFmt, PowersOfAllSizes) {
  for (float y = -150; y < 128; y += 0x1p-9F) {
    double const power = std::exp2(static_cast<double>(y));
    ASSERT_NEAR(logfmt::exp2(y), power, 4e-7 * power + 0x1p-150) << y;
  }
  EXPECT_TRUE(std::isfinite(logfmt::exp2(128)));
}

TEST(LogFmt, RandomTilesOfManyRanges) {
  Random random(1);
  for (int round = 0; round < by_scale(600, 3000); ++round) {
    double const top = -100 + 227 * uniform(random);
    double const binades = std::exp2(-12 + 17 * uniform(random));
    expect_as_defined(tile([&](int) { return signed_value(random, std::exp2(top - binades * uniform(random))); }));
    if (HasFailure()) FAIL() << "top " << top << ", binades " << binades;
  }
}

TEST(LogFmt, TilesLikeActivations) {
  Random random(2);
  for (int round = 0; round < 500; ++round) {
    double const size = std::exp2(-10 + 20 * uniform(random));
    expect_as_defined(tile([&](int) {
      double sum = -6;
      for (int i = 0; i < 12; ++i) sum += uniform(random);
      return signed_value(random, std::fabs(sum) * size);
    }));
  }
}

TEST(LogFmt, BetweenTwoLevelsTheMiddleOfTheirValuesDecides) {
  // 1 and 2^32 set the levels; the others lie closely around the middle of two levels.
  constexpr double step = 32.0 / 510;
  for (int k = 0; k < 510; ++k) {
    double const middle = (std::exp2(step * k) + std::exp2(step * (k + 1))) / 2;
    auto const x = tile([&](int i) {
      return static_cast<float>(i == 0 ? 1.0 : i == 1 ? 0x1p32 : middle * (i % 2 == 0 ? 0.9999 : 1.0001));
    });
    Codes const codes = round_trip(x).codes;
    ASSERT_EQ(code_of(codes, 2), static_cast<std::uint32_t>(k + 1));
    ASSERT_EQ(code_of(codes, 3), static_cast<std::uint32_t>(k + 2));
  }
}

TEST(LogFmt, ZerosKeepTheirSigns) {
  expect_as_defined(tile([](int i) { return i % 2 == 0 ? 0.0F : -0.0F; }));
  expect_as_defined(tile([](int i) { return i == 77 ? -3.0F : i % 2 == 0 ? 0.0F : -0.0F; }));
}

TEST(LogFmt, EqualMagnitudesAndPowersOfTwo) {
  for (float const v : {1.0F, 3.0F, 0.1F, 1e-30F, 0x1p-149F, std::numeric_limits<float>::max()}) {
    auto const x = tile([v](int i) { return i % 3 == 0 ? -v : v; });
    expect_as_defined(x);
    EXPECT_EQ(round_trip(x).scale.step, 0);
  }
  auto const equal_powers = tile([](int) { return -0x1p-7F; });
  EXPECT_EQ(round_trip(equal_powers).values, equal_powers);
  // 31 binades; the ends are levels.
  auto const powers = tile([](int i) { return std::ldexp(1.0F, i % 32 - 20); });
  expect_as_defined(powers);
  EXPECT_EQ(round_trip(powers).values[0], powers[0]);
}

TEST(LogFmt, BesideOneHugeValueSmallOnesVanish) {
  auto const x = tile([](int i) { return i == 5 ? 0x1p40F : std::ldexp(1.0F, i % 16); });
  expect_as_defined(x);
  Coded const coded = round_trip(x);
  EXPECT_EQ(coded.values[5], 0x1p40F);
  EXPECT_EQ(coded.values[6], 0);                // 2^6: below half of 2^8
  EXPECT_EQ(code_of(coded.codes, 16 + 7), 1U);  // 2^7 is half of it: the nearer one is open, and up was chosen
  EXPECT_EQ(coded.values[16 + 8], 0x1p8F);
}

TEST(LogFmt, DenormalsAndTheGreatestValues) {
  Random random(3);
  expect_as_defined(tile([](int i) { return std::ldexp(static_cast<float>(1 + i * 7919), -149); }));
  expect_as_defined(tile([&](int) { return signed_value(random, std::exp2(-149 + 40 * uniform(random))); }));
  auto const greatest = tile([](int i) { return i == 0 ? 0x1p120F : std::numeric_limits<float>::max(); });
  expect_as_defined(greatest);
  for (float const v : round_trip(greatest).values) EXPECT_TRUE(std::isfinite(v));
}

TEST(LogFmt, NeverSilentlyFinite) {
  for (float const bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN()}) {
    for (int const at : {0, 63, 127}) {
      auto const x = tile([&](int i) { return i == at ? bad : static_cast<float>(i); });
      for (float const v : round_trip(x).values) ASSERT_TRUE(std::isnan(v));
    }
  }
}

TEST(LogFmt, ShortTilesCountAsPaddedWithZeros) {
  Random random(4);
  for (int count = 1; count <= logfmt_tile; ++count) {
    auto x = tile([&](int) { return signed_value(random, std::exp2(8 * uniform(random))); }, count);
    expect_as_defined(x);
    Codes const codes = round_trip(x).codes;
    x.resize(logfmt_tile, 0.0F);
    ASSERT_EQ(round_trip(x).codes, codes);
  }
}

// What a GPU's warp does: 32 lanes, four channels each.
TEST(LogFmt, QuadsMakeTheTile) {
  Random random(5);
  auto const x = tile([&](int) { return signed_value(random, std::exp2(-5 + 10 * uniform(random))); });
  LogfmtRange range;
  for (float const v : x) range.add(v);
  LogfmtEncoder const encoder = logfmt_encoder(range);
  Coded const coded = round_trip(x);
  EXPECT_EQ(encoder.scale.min, coded.scale.min);
  EXPECT_EQ(encoder.scale.step, coded.scale.step);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    float values[logfmt_quad] = {x[4 * lane], x[4 * lane + 1], x[4 * lane + 2], x[4 * lane + 3]};
    LogfmtQuad const quad = logfmt_encode(encoder, values);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(coded.codes[4 * lane + i], (quad.low >> (8 * i) & 0xffU));
    }
    EXPECT_EQ(coded.codes[logfmt_high_at + lane], quad.high);
    logfmt_decode(encoder.scale, quad, values);
    EXPECT_TRUE(std::equal(values, values + 4, coded.values.begin() + static_cast<std::ptrdiff_t>(4 * lane)));
  }
}

// Also at compile time: nothing here depends on a library or a mode of the processor.
TEST(LogFmt, IsAConstantExpression) {
  constexpr float halves = [] {
    float const x[2] = {0.5F, -0.5F};
    std::uint8_t codes[logfmt_tile_bytes] = {};
    LogfmtScale const scale = logfmt_encode_tile(x, 2, codes);
    float back[2] = {};
    logfmt_decode_tile(scale, codes, back, 2);
    return back[0] - back[1];
  }();
  static_assert(halves == 1.0F);
}

}  // namespace
}  // namespace switchyard::test
