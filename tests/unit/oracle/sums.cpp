// Sums of a combine over nodes, against sums worked out by hand.
#include "oracle/sums.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "oracle/numbers.hpp"

namespace switchyard::test {
namespace {

using oracle::SumTerms;
using oracle::Terms;

// One channel of one token, with a row from each rank.
class OneRowARank final : public oracle::JobData {
 public:
  OneRowARank(std::vector<float> rows, DType dtype) : rows_(std::move(rows)), dtype_(dtype) {}

  [[nodiscard]] std::int64_t tokens(int /*rank*/) const override { return 1; }
  [[nodiscard]] std::int64_t id(oracle::TokenKey const& /*key*/, int slot) const override { return slot; }
  [[nodiscard]] oracle::TokenBytes token(oracle::TokenKey const& /*key*/) const override { return {}; }
  [[nodiscard]] std::vector<float> weights(oracle::TokenKey const& /*key*/) const override { return {}; }
  void fill_output(int maker, oracle::Row const& /*row*/, std::span<std::byte> out) const override {
    oracle::put(out.data(), dtype_, 0, rows_[static_cast<std::size_t>(maker)]);
  }

 private:
  std::vector<float> rows_;
  DType dtype_;
};

struct Tree {
  std::vector<int> node_by_rank{0, 0, 1, 1};
  std::vector<float> rows{};            // by rank
  std::vector<int> makers{0, 1, 2, 3};  // in the order of slots
  DType dtype = DType::bf16;
  bool f32_partials = false;
  std::vector<float> start{};

  // For a token of `owner`, before the last rounding.
  [[nodiscard]] float sum(int owner) const {
    Terms terms{.ranks = static_cast<int>(rows.size()), .hidden = 1, .output_dtype = dtype};
    terms.node_by_rank = node_by_rank;
    terms.f32_partials = f32_partials;
    SumTerms sum{.parts = {}, .start = start};
    for (int const maker : makers) sum.parts.push_back({.maker = maker, .row = {.source = owner, .token = 0}});
    return sum_over_nodes(terms, OneRowARank(rows, dtype), sum, owner).at(0);
  }
};

// 1 + 2^-8 and 4 + 2^-6 lie in the middle between two values of bf16, the lower of which is even.
TEST(SumOverNodes, OtherNodesSumsAreRounded) {
  Tree const tree{.rows = {1, 0x1p-8F, 4, 0x1p-6F}};
  EXPECT_EQ(tree.sum(0), 1 + 0x1p-8F + 4);
  EXPECT_EQ(tree.sum(1), 1 + 0x1p-8F + 4);
  EXPECT_EQ(tree.sum(2), 1 + 4 + 0x1p-6F);
}

TEST(SumOverNodes, TheyStayF32OnRequest) {
  Tree const tree{.rows = {1, 0x1p-8F, 4, 0x1p-6F}, .f32_partials = true};
  EXPECT_EQ(tree.sum(0), 1 + 0x1p-8F + 4 + 0x1p-6F);
  EXPECT_EQ(tree.sum(3), 1 + 0x1p-8F + 4 + 0x1p-6F);
}

// One by one the first two would be 2^24 + 1, which f32 rounds to 2^24.
TEST(SumOverNodes, ANodeAddsUpItsOwnRowsFirst) {
  Tree const tree{.node_by_rank = {0, 1, 0, 1}, .rows = {0x1p24F, 1, -0x1p24F, 1}, .dtype = DType::f32};
  EXPECT_EQ(tree.sum(0), 2);
  EXPECT_EQ(tree.sum(3), 2);
}

// (1 + 2^24) - 2^24 is 0 in f32, (2^24 - 2^24) + 1 is 1.
TEST(SumOverNodes, WithinANodeTheOrderIsThatOfSlots) {
  Tree tree{.node_by_rank = {0, 0, 0, 1}, .rows = {1, 0x1p24F, -0x1p24F, 8}, .dtype = DType::f32};
  EXPECT_EQ(tree.sum(0), 8);
  tree.makers = {1, 3, 2, 0};
  EXPECT_EQ(tree.sum(0), 9);
}

TEST(SumOverNodes, NodesComeInTheirOrder) {
  Tree tree{.node_by_rank = {0, 1, 2}, .rows = {1, 0x1p24F, -0x1p24F}, .makers = {2, 1, 0}, .dtype = DType::f32};
  for (int owner = 0; owner < 3; ++owner) EXPECT_EQ(tree.sum(owner), 0);
  tree.node_by_rank = {2, 0, 1};
  for (int owner = 0; owner < 3; ++owner) EXPECT_EQ(tree.sum(owner), 1);
}

// A bias of 1 would be lost among the rows of node 0, but they are added up without it.
TEST(SumOverNodes, BiasesComeBeforeTheSumsOfNodes) {
  Tree const tree{.node_by_rank = {0, 0, 1},
                  .rows = {0x1p24F, -0x1p24F, 4},
                  .makers = {0, 1, 2},
                  .dtype = DType::f32,
                  .start = {1}};
  EXPECT_EQ(tree.sum(0), 5);
}

TEST(SumOverNodes, ANodeWithoutRowsHasNoSum) {
  Tree tree{.rows = {-0.0F, 0, 0, 0}, .makers = {0}};
  for (int const owner : {0, 2}) {
    EXPECT_EQ(tree.sum(owner), 0);
    EXPECT_TRUE(std::signbit(tree.sum(owner))) << "a zero of a node without rows was added";
  }
  tree.makers.clear();
  EXPECT_FALSE(std::signbit(tree.sum(0)));
  tree.start = {3};
  EXPECT_EQ(tree.sum(0), 3);
}

TEST(SumOverNodes, OnOneNodeThereIsNoTree) {
  Tree tree{.node_by_rank = {}, .rows = {0x1p24F, -0x1p24F}, .makers = {0, 1}, .dtype = DType::f32, .start = {1}};
  EXPECT_EQ(tree.sum(0), 0);
  tree.node_by_rank = {0, 0};
  EXPECT_EQ(tree.sum(0), 0);
}

}  // namespace
}  // namespace switchyard::test
