// The reference itself, against values worked out by hand: a wrong ruler measures nothing.
#include <gtest/gtest.h>

#include "support/numbers.hpp"
#include "support/reference_combine.hpp"

namespace switchyard::test {
namespace {

void expect_codes_survive(Format format, std::uint32_t codes) {
  for (std::uint32_t code = 0; code < codes; ++code) {
    float const value = decode(code, format);
    EXPECT_EQ(encode(value, format), code);
  }
}

TEST(Reference, CodesSurviveDecodingAndEncoding) {
  expect_codes_survive(f16_format, 0x7c00);
  expect_codes_survive(bf16_format, 0x7f80);
  expect_codes_survive(e4m3_format, 0x7f);
}

TEST(Reference, RoundsToNearestEven) {
  EXPECT_EQ(encode(1.0F + 0x1p-8F, bf16_format), 0x3f80U);      // tie to even: down
  EXPECT_EQ(encode(1.0F + 3 * 0x1p-8F, bf16_format), 0x3f82U);  // tie to even: up
  EXPECT_EQ(encode(1.0F + 0x1.01p-8F, bf16_format), 0x3f81U);   // above the tie
  EXPECT_EQ(encode(-65504.0F, f16_format), 0xfbffU);            // largest
  EXPECT_EQ(encode(65520.0F, f16_format), 0x7c00U);             // rounds to infinity
  EXPECT_EQ(encode(0x1p-25F, f16_format), 0U);                  // half the smallest: tie to even
  EXPECT_EQ(encode(0x1.8p-24F, f16_format), 2U);                // subnormal tie: up to even
  EXPECT_EQ(encode(448.0F, e4m3_format), 0x7eU);
  EXPECT_EQ(encode(-1e9F, e4m3_format), 0xfeU);                       // saturates
  EXPECT_EQ(encode(0x1p-9F, e4m3_format), 1U);                        // smallest subnormal
  EXPECT_EQ(encode(17.0F, e4m3_format), encode(16.0F, e4m3_format));  // tie to even
}

TEST(Reference, FirstRanksHoldTheRemainder) {
  Case const c{.ranks = 3, .experts = 8};
  EXPECT_EQ(experts_of(c, 0).count(), 3);
  EXPECT_EQ(experts_of(c, 1).begin, 3);
  EXPECT_EQ(experts_of(c, 1).count(), 3);
  EXPECT_EQ(experts_of(c, 2).begin, 6);
  EXPECT_EQ(experts_of(c, 2).count(), 2);
}

// Two ranks of two experts; token 0 of rank 0 goes to experts 3 and 0, token 1 to 1; rank 1's only to 0.
Problem two_ranks(OutputLayout layout) {
  Problem p;
  p.the = {.ranks = 2, .experts = 4, .layout = layout, .alignment = 2};
  p.inputs.resize(2);
  p.inputs[0].tokens = 2;
  p.inputs[0].ids = {3, 0, 1, -1};
  p.inputs[0].weights = {0.5F, 0.25F, 1.0F, 9.0F};
  p.inputs[1].tokens = 1;
  p.inputs[1].ids = {-1, 0};
  p.inputs[1].weights = {9.0F, 0.75F};
  return p;
}

std::vector<std::array<std::int64_t, 3>> numbers(std::vector<Row> const& rows) {
  std::vector<std::array<std::int64_t, 3>> out;
  for (Row const& row : rows) out.push_back({row.source, row.token, row.slot});
  return out;
}

using Rows = std::vector<std::array<std::int64_t, 3>>;

TEST(Reference, FlatRowsByHand) {
  Problem const p = two_ranks(OutputLayout::flat);
  EXPECT_EQ(numbers(received_rows(p, 0)), (Rows{{0, 0, -1}, {0, 1, -1}, {1, 0, -1}}));
  EXPECT_EQ(numbers(received_rows(p, 1)), (Rows{{0, 0, -1}}));
  EXPECT_EQ(rows_end_by_rank(p, 0), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(tokens_per_expert(p, 0), (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(tokens_per_expert(p, 1), (std::vector<std::int64_t>{0, 2}));
  EXPECT_EQ(local_id(p, {0, 0, -1}, 0, 0), -1);
  EXPECT_EQ(local_id(p, {0, 0, -1}, 0, 1), 0);
  EXPECT_EQ(local_id(p, {0, 0, -1}, 1, 0), 1);
}

TEST(Reference, ExpandedRowsByHand) {
  Problem const p = two_ranks(OutputLayout::expanded);
  EXPECT_EQ(numbers(received_rows(p, 0)), (Rows{{0, 0, 1}, {1, 0, 1}, {0, 1, 0}, {-1, -1, -1}}));
  EXPECT_EQ(numbers(received_rows(p, 1)), (Rows{{0, 0, 0}, {-1, -1, -1}}));
}

TEST(Reference, SumsByRankOrByExpert) {
  Problem const flat = two_ranks(OutputLayout::flat);
  EXPECT_EQ(parts_of(flat, 0, 0).size(), 2U);
  EXPECT_EQ(parts_of(flat, 0, 0)[1].receiver, 1);
  Problem const expanded = two_ranks(OutputLayout::expanded);
  EXPECT_EQ(parts_of(expanded, 0, 0)[0].row.slot, 1);
  EXPECT_EQ(parts_of(expanded, 0, 0)[1].row.slot, 0);
}

TEST(Reference, CastByHand) {
  Case const c{.hidden = 130, .dtype = DType::f32};
  std::vector<float> row(130, 0.0F);
  row[0] = -2.0F;
  row[1] = 1.0F;
  TokenData const cast = cast_by_definition(reinterpret_cast<std::byte const*>(row.data()), c);
  EXPECT_EQ(cast.scales, (std::vector<float>{2.0F / 448.0F, 1e-4F / 448.0F}));
  EXPECT_EQ(cast.x[0], std::byte{0xfe});
  EXPECT_EQ(cast.x[1], std::byte{0x76});  // 224 = 1.75 * 2^7
  EXPECT_EQ(cast.x[129], std::byte{0});
}

}  // namespace
}  // namespace switchyard::test
