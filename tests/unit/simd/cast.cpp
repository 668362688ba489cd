// cast_to_fp8() against e4m3 by its definition: a table of all values, searched for the nearest.
#include "engine/cpu/simd/targets.hpp"
// After simd_targets.hpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "engine/cpu/simd/kernels.hpp"
#include "hwy/highway.h"
#include "layout/fp8.hpp"
#include "support/scale.hpp"
#include "switchyard/error.hpp"

namespace switchyard::cpu {
namespace {

constexpr std::size_t group = fp8_group;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// The values of the codes 0x00 to 0x7e: 4 bits of exponent (bias 7), 3 of mantissa.
std::array<double, 127> const& e4m3_values() {
  static std::array<double, 127> const values = [] {
    std::array<double, 127> result{};
    for (int code = 0; code < 127; ++code) {
      int const exponent = code / 8;
      int const mantissa = code % 8;
      result[static_cast<std::size_t>(code)] =
          exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    }
    return result;
  }();
  return values;
}

// By search; a tie goes to the even code, which is the one with the even mantissa.
std::uint8_t e4m3(float scaled, bool negative) {
  auto const sign = static_cast<std::uint8_t>(negative ? 0x80 : 0);
  if (std::isnan(scaled)) return sign | 0x7f;
  double const wanted = std::fabs(static_cast<double>(scaled));
  auto const& values = e4m3_values();
  auto const above = static_cast<std::size_t>(std::ranges::lower_bound(values, wanted) - values.begin());
  if (above == values.size()) return sign | 0x7e;
  if (above == 0) return sign;
  double const up = values[above] - wanted;
  double const down = wanted - values[above - 1];
  bool const take_above = up < down || (up == down && above % 2 == 0);
  return static_cast<std::uint8_t>(sign | (take_above ? above : above - 1));
}

float f16_value(std::uint16_t bits) {
  int const exponent = bits >> 10 & 31;
  int const mantissa = bits & 1023;
  float const sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
  if (exponent == 31) return std::copysign(mantissa != 0 ? nan : infinity, sign);
  return sign *
         static_cast<float>(exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

struct Row {
  DType dtype;
  std::vector<std::byte> bytes;
  std::vector<float> values;

  // From 16-bit patterns, or from the bits of an f32.
  void add(std::uint32_t bits) {
    float value = std::bit_cast<float>(dtype == DType::f32 ? bits : bits << 16);
    if (dtype == DType::f16) value = f16_value(static_cast<std::uint16_t>(bits));
    values.push_back(value);
    auto const* const raw = reinterpret_cast<std::byte const*>(&bits);  // little endian
    bytes.insert(bytes.end(), raw, raw + size_of(dtype));
  }
};

struct Fp8Row {
  std::vector<std::uint8_t> values;
  std::vector<float> scales;
};

// The smallest power of two that is at least amax / 448, by search.
float power_of_two_scale(float amax) {
  if (std::isinf(amax)) return amax;
  double scale = 0x1p-60;
  while (scale * 448 < static_cast<double>(amax)) scale *= 2;
  return static_cast<float>(scale);
}

Fp8Row reference(std::vector<float> const& row, bool power_of_two) {
  Fp8Row result;
  for (std::size_t start = 0; start < row.size(); start += group) {
    std::span const part = std::span(row).subspan(start, std::min(group, row.size() - start));
    float amax = 1e-4F;
    for (float const value : part) amax = std::isnan(value) ? amax : std::max(amax, std::fabs(value));
    result.scales.push_back(power_of_two ? power_of_two_scale(amax) : amax / 448.0F);
    float const factor = power_of_two ? 1 / result.scales.back() : 448.0F / amax;
    for (float const value : part) {
      float const volatile scaled = value * factor;
      result.values.push_back(e4m3(scaled, std::signbit(value)));
    }
  }
  return result;
}

class KernelsCast : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { select(GetParam()); }
  void TearDown() override { select(0); }

  // 0: the best.
  static void select(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

void check_one(Row const& row, bool power_of_two, std::size_t from_shift, std::size_t to_shift) {
  Fp8Row const expected = reference(row.values, power_of_two);
  std::size_t const count = row.values.size();
  constexpr std::size_t guard = 64;
  std::vector<std::byte> from(from_shift);
  from.insert(from.end(), row.bytes.begin(), row.bytes.end());
  std::vector<std::uint8_t> values(guard + to_shift + count + guard, 0xa5);
  std::vector<float> scales(expected.scales.size() + 2, -1.0F);
  cast_to_fp8({.from = from.data() + from_shift,
               .count = count,
               .dtype = row.dtype,
               .values = values.data() + guard + to_shift,
               .scales = scales.data() + 1,
               .power_of_two = power_of_two});
  for (std::size_t i = 0; i < count; ++i) {
    ASSERT_EQ(values[guard + to_shift + i], expected.values[i])
        << name_of(row.dtype) << ' ' << row.values[i] << " at " << i << " of " << count;
  }
  for (std::size_t i = 0; i < expected.scales.size(); ++i) ASSERT_EQ(scales[i + 1], expected.scales[i]) << i;
  auto const is_guard = [](std::uint8_t value) { return value == 0xa5; };
  ASSERT_TRUE(std::ranges::all_of(std::span(values).first(guard + to_shift), is_guard)) << count;
  ASSERT_TRUE(std::ranges::all_of(std::span(values).last(guard), is_guard)) << count;
  ASSERT_EQ(scales.front(), -1.0F);
  ASSERT_EQ(scales.back(), -1.0F);
}

void check(Row const& row, std::size_t from_shift = 0, std::size_t to_shift = 0) {
  for (bool const power_of_two : {false, true}) {
    SCOPED_TRACE(power_of_two ? "scales are powers of two" : "scales as they come");
    ASSERT_NO_FATAL_FAILURE(check_one(row, power_of_two, from_shift, to_shift));
  }
}

Row random_row(DType dtype, std::size_t count, std::mt19937& random) {
  Row row{dtype, {}, {}};
  // Of moderate size, so that one value does not flatten its whole group, now and then of any.
  for (std::size_t i = 0; i < count; ++i) {
    auto const any = static_cast<std::uint32_t>(random());
    bool const wild = random() % 1000 == 0;
    switch (dtype) {
      case DType::f16: row.add(wild ? any & 0xffff : (any & 0x8fff) | 0x3000); break;
      case DType::bf16: row.add(wild ? any & 0xffff : (any & 0x83ff) | 0x3c00); break;
      default: row.add(wild ? any : (any & 0x83ffffff) | 0x3c000000); break;
    }
  }
  return row;
}

TEST_P(KernelsCast, RandomOfEverySize) {
  std::mt19937::result_type const seed = 20240601;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (DType const dtype : {DType::bf16, DType::f16, DType::f32}) {
    for (std::size_t count = 0; count <= 300; count += static_cast<std::size_t>(test::by_scale(3, 1))) {
      ASSERT_NO_FATAL_FAILURE(check(random_row(dtype, count, random), random() % 64, random() % 64));
    }
    for (int i = 0; i < test::by_scale(3, 20); ++i) ASSERT_NO_FATAL_FAILURE(check(random_row(dtype, 7168, random)));
  }
}

// Every 16-bit pattern, in groups of its own magnitude and in groups that span all of them.
TEST_P(KernelsCast, Every16BitInput) {
  for (DType const dtype : {DType::bf16, DType::f16}) {
    for (std::uint32_t const step : {1U, 257U}) {
      Row row{dtype, {}, {}};
      for (std::uint32_t i = 0; i < 65536; ++i) row.add(i * step & 0xffff);
      ASSERT_NO_FATAL_FAILURE(check(row));
    }
  }
}

// With 448 in the group the factor is 1, so that every value and every tie between two can be written down.
TEST_P(KernelsCast, ValuesTiesAndTheirNeighbours) {
  std::vector<float> wanted;
  auto const& values = e4m3_values();
  for (std::size_t code = 0; code < values.size(); ++code) {
    auto const value = static_cast<float>(values[code]);
    auto const next = static_cast<float>(values[std::min(code + 1, values.size() - 1)]);
    for (float const base : {value, (value + next) / 2}) {
      for (float const near : {base, std::nextafter(base, 0.0F), std::nextafter(base, 448.0F)}) {
        wanted.insert(wanted.end(), {near, -near});
      }
    }
  }
  Row row{DType::f32, {}, {}};
  for (float const value : wanted) {
    if (row.values.size() % group == 0) row.add(std::bit_cast<std::uint32_t>(448.0F));
    row.add(std::bit_cast<std::uint32_t>(value));
  }
  check(row);
}

TEST_P(KernelsCast, Specials) {
  float const denormal = std::numeric_limits<float>::denorm_min();
  float const largest = std::numeric_limits<float>::max();
  std::vector<std::vector<float>> const groups = {
      {},
      {0.0F, -0.0F},
      {nan, -nan, 1.0F, -2.0F},
      {infinity, -infinity, 1.0F, -0.0F, nan},
      {denormal, -denormal, 1e-38F},
      {1e-4F, -1e-4F, 1e-5F, 9.9e-5F},
      {largest, -largest, 1.0F, 1e30F},
      {nan, -nan},
  };
  Row row{DType::f32, {}, {}};
  for (auto values : groups) {
    values.resize(group);
    for (float const value : values) row.add(std::bit_cast<std::uint32_t>(value));
  }
  row.add(0xff800001);  // a signalling NaN, alone in the last group
  check(row);
}

TEST(KernelsCastArguments, OtherTypesAreRefused) {
  EXPECT_THROW(cast_to_fp8({.dtype = DType::i32}), InvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Targets, KernelsCast, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](auto const& target) { return hwy::TargetName(target.param); });

}  // namespace
}  // namespace switchyard::cpu
