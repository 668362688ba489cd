// LogFMT-10 rows on every instruction set: the bits that layout/logfmt.hpp makes of a tile at a time.
#include "engine/cpu/simd/targets.hpp"
// After simd_targets.hpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "engine/cpu/simd/kernels.hpp"
#include "hwy/highway.h"
#include "layout/logfmt.hpp"
#include "oracle/numbers.hpp"

namespace switchyard::cpu {
namespace {

class KernelsLogfmt : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { select(GetParam()); }
  void TearDown() override { select(0); }

  // 0: the best.
  static void select(std::int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

float value_at(std::vector<std::byte> const& row, DType dtype, std::size_t index) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, &row[2 * index], 2);
  std::uint16_t const infinite = dtype == DType::bf16 ? 0x7f80 : 0x7c00;
  std::uint16_t const magnitude = bits & 0x7fff;
  if (magnitude < infinite) return oracle::get(row.data(), dtype, index);
  using Limits = std::numeric_limits<float>;
  return std::copysign(magnitude == infinite ? Limits::infinity() : Limits::quiet_NaN(),
                       (bits & 0x8000) != 0 ? -1.0F : 1.0F);
}

// Of any 16-bit patterns, infinities and NaN now and then included.
std::vector<std::byte> random_row(std::size_t count, std::mt19937& random) {
  std::vector<std::byte> row(count * 2);
  for (std::byte& byte : row) byte = static_cast<std::byte>(random());
  // Tiles without either are what is to be seen most of all.
  for (std::size_t i = 0; i < count; ++i) {
    if (random() % 512 != 0) row[2 * i + 1] &= std::byte{0xbb};
  }
  return row;
}

std::vector<std::byte> coded_by_tile(std::vector<float> const& values) {
  std::size_t const count = values.size();
  std::vector<std::byte> coded(logfmt_row_bytes(count));
  for (std::size_t tile = 0; tile < logfmt_tiles(count); ++tile) {
    std::size_t const at = tile * logfmt_tile;
    int const there = static_cast<int>(std::min<std::size_t>(logfmt_tile, count - at));
    LogfmtScale const scale = logfmt_encode_tile(
        values.data() + at, there, reinterpret_cast<std::uint8_t*>(coded.data() + tile * logfmt_tile_bytes));
    std::memcpy(coded.data() + logfmt_scales_at(count) + tile * sizeof scale, &scale, sizeof scale);
  }
  return coded;
}

std::vector<float> decoded_by_tile(std::vector<std::byte> const& coded, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t tile = 0; tile < logfmt_tiles(count); ++tile) {
    std::size_t const at = tile * logfmt_tile;
    LogfmtScale scale;
    std::memcpy(&scale, coded.data() + logfmt_scales_at(count) + tile * sizeof scale, sizeof scale);
    logfmt_decode_tile(scale, reinterpret_cast<std::uint8_t const*>(coded.data() + tile * logfmt_tile_bytes),
                       values.data() + at, static_cast<int>(std::min<std::size_t>(logfmt_tile, count - at)));
  }
  return values;
}

void check(DType dtype, std::size_t count, std::mt19937& random) {
  std::vector<std::byte> const row = random_row(count, random);
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = value_at(row, dtype, i);
  std::vector<std::byte> const expected = coded_by_tile(values);
  std::vector<std::byte> coded(expected.size() + 1, std::byte{0xa5});
  encode_logfmt({.values = row.data(), .count = count, .dtype = dtype, .coded = coded.data()});
  ASSERT_TRUE(std::equal(expected.begin(), expected.end(), coded.begin())) << name_of(dtype) << ' ' << count;
  ASSERT_EQ(coded.back(), std::byte{0xa5});

  std::vector<float> decoded(count);
  decode_logfmt(coded.data(), count, decoded.data());
  std::vector<float> const wanted = decoded_by_tile(expected, count);
  ASSERT_EQ(std::memcmp(decoded.data(), wanted.data(), count * sizeof(float)), 0) << name_of(dtype) << ' ' << count;
}

TEST_P(KernelsLogfmt, RowsOfEverySize) {
  std::mt19937 random(20261125);
  for (DType const dtype : {DType::bf16, DType::f16}) {
    for (std::size_t count = 1; count <= 300; ++count) ASSERT_NO_FATAL_FAILURE(check(dtype, count, random));
    ASSERT_NO_FATAL_FAILURE(check(dtype, 7168, random));
  }
}

// Any bits of f32, and such that lie halfway between two values.
TEST_P(KernelsLogfmt, NarrowedRows) {
  std::mt19937 random(20261126);
  for (DType const dtype : {DType::bf16, DType::f16}) {
    for (std::size_t count = 0; count <= 300; ++count) {
      std::vector<float> values(count);
      for (float& value : values) {
        auto const bits = static_cast<std::uint32_t>(random());
        value = std::bit_cast<float>(random() % 2 == 0 ? bits : (bits & 0x87fff000U) | 0x38000000U);
      }
      std::vector<std::byte> narrowed(count * 2 + 1, std::byte{0xa5});
      narrow_row(values.data(), count, dtype, narrowed.data());
      std::vector<std::byte> expected(count * 2);
      for (std::size_t i = 0; i < count; ++i) {
        oracle::put(expected.data(), dtype, i, values[i]);
        if (std::isnan(values[i])) {
          ASSERT_TRUE(std::isnan(value_at(narrowed, dtype, i))) << name_of(dtype) << " NaN";
        } else {
          ASSERT_EQ(std::memcmp(&narrowed[2 * i], &expected[2 * i], 2), 0) << name_of(dtype) << ' ' << values[i];
        }
      }
      ASSERT_EQ(narrowed.back(), std::byte{0xa5});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, KernelsLogfmt, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](auto const& target) { return hwy::TargetName(target.param); });

}  // namespace
}  // namespace switchyard::cpu
