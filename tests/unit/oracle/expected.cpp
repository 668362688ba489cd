// What must arrive, against rows and values worked out by hand: a wrong ruler measures nothing.
#include "oracle/expected.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "oracle/sent.hpp"
#include "support/problem.hpp"

namespace switchyard::test {
namespace {

using oracle::Terms;
using oracle::TokenBytes;

TEST(Expected, FirstRanksHoldTheRemainder) {
  Case const c{.ranks = 3, .experts = 8};
  EXPECT_EQ(oracle::experts_of(c, 0).count(), 3);
  EXPECT_EQ(oracle::experts_of(c, 1).begin, 3);
  EXPECT_EQ(oracle::experts_of(c, 1).count(), 3);
  EXPECT_EQ(oracle::experts_of(c, 2).begin, 6);
  EXPECT_EQ(oracle::experts_of(c, 2).count(), 2);
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

std::vector<std::array<std::int64_t, 3>> numbers(std::vector<oracle::Row> const& rows) {
  std::vector<std::array<std::int64_t, 3>> out;
  for (oracle::Row const& row : rows) out.push_back({row.source, row.token, row.slot});
  return out;
}

using Rows = std::vector<std::array<std::int64_t, 3>>;

std::vector<oracle::Row> rows_of(Problem const& p, int rank) {
  return received_rows(terms_of(p.the), p, rank, p.the.alignment);
}

TEST(Expected, FlatRowsByHand) {
  Problem const p = two_ranks(OutputLayout::flat);
  Terms const terms = terms_of(p.the);
  EXPECT_EQ(numbers(rows_of(p, 0)), (Rows{{0, 0, -1}, {0, 1, -1}, {1, 0, -1}}));
  EXPECT_EQ(numbers(rows_of(p, 1)), (Rows{{0, 0, -1}}));
  EXPECT_EQ(rows_end_by_rank(terms, p, 0), (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(tokens_per_expert(terms, p, 0), (std::vector<std::int64_t>{2, 1}));
  EXPECT_EQ(tokens_per_expert(terms, p, 1), (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(padded_tokens_per_expert(terms, p, 0, 2), (std::vector<std::int64_t>{2, 2}));
  EXPECT_EQ(padded_tokens_per_expert(terms, p, 1, 2), (std::vector<std::int64_t>{0, 2}));
  EXPECT_EQ(local_id(terms, p, {0, 0}, 0, 0), -1);
  EXPECT_EQ(local_id(terms, p, {0, 0}, 1, 0), 0);
  EXPECT_EQ(local_id(terms, p, {0, 0}, 0, 1), 1);
}

TEST(Expected, ExpandedRowsByHand) {
  Problem const p = two_ranks(OutputLayout::expanded);
  EXPECT_EQ(numbers(rows_of(p, 0)), (Rows{{0, 0, 1}, {1, 0, 1}, {0, 1, 0}, {-1, -1, -1}}));
  EXPECT_EQ(numbers(rows_of(p, 1)), (Rows{{0, 0, 0}, {-1, -1, -1}}));
}

TEST(Expected, SumsBySlot) {
  Problem const flat = two_ranks(OutputLayout::flat);
  auto const of_ranks = contributions(terms_of(flat.the), flat, {0, 0});
  ASSERT_EQ(of_ranks.size(), 2U);
  EXPECT_EQ(of_ranks[0].maker, 1);
  EXPECT_EQ(of_ranks[1].maker, 0);
  Problem const expanded = two_ranks(OutputLayout::expanded);
  auto const of_slots = contributions(terms_of(expanded.the), expanded, {0, 0});
  ASSERT_EQ(of_slots.size(), 2U);
  EXPECT_EQ(of_slots[0].row.slot, 0);
  EXPECT_EQ(of_slots[1].row.slot, 1);
}

TEST(Expected, CastByHand) {
  std::vector<float> row(130, 0.0F);
  row[0] = -2.0F;
  row[1] = 1.0F;
  TokenBytes const cast = oracle::cast_token(std::as_bytes(std::span(row)), DType::f32, SendCast::fp8);
  std::vector<float> const scales{2.0F / 448.0F, 1e-4F / 448.0F};
  EXPECT_TRUE(std::ranges::equal(cast.scales, std::as_bytes(std::span(scales))));
  EXPECT_EQ(cast.x[0], std::byte{0xfe});
  EXPECT_EQ(cast.x[1], std::byte{0x76});  // 224 = 1.75 * 2^7
  EXPECT_EQ(cast.x[129], std::byte{0});
}

}  // namespace
}  // namespace switchyard::test
