// Flat routes against their definition, for jobs of more ranks than a node has, too.
#include "layout/routes.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/random.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::test {
namespace {

struct Ids {
  std::int64_t tokens = 0;
  std::int64_t top_k = 0;
  std::vector<std::int64_t> values{};

  [[nodiscard]] ConstTensorView view() const { return {values.data(), DType::i64, {tokens, top_k}}; }
  [[nodiscard]] std::int64_t at(std::int64_t token, std::int64_t slot) const {
    return values[static_cast<std::size_t>(token * top_k + slot)];
  }
};

Ids random_ids(Random& random, std::int64_t tokens, std::int64_t top_k, int num_experts) {
  Ids ids{.tokens = tokens, .top_k = top_k};
  for (std::int64_t i = 0; i < tokens * top_k; ++i) ids.values.push_back(random.below(num_experts + 1) - 1);
  return ids;
}

// The ranks of a token's experts, by the last slot that names each.
std::vector<int> ranks_of(Ids const& ids, std::int64_t token, ExpertSplit const& experts) {
  std::vector<int> ranks;
  for (std::int64_t slot = 0; slot < ids.top_k; ++slot) {
    std::int64_t const expert = ids.at(token, slot);
    if (expert < 0) continue;
    int const rank = experts.rank_of(static_cast<int>(expert));
    std::erase(ranks, rank);
    ranks.push_back(rank);
  }
  return ranks;
}

TEST(ExpandedRoutes, OneRowForEachUsedSlot) {
  Random random(11);
  int const num_ranks = 5;
  int const num_experts = 13;
  ExpertSplit const experts(num_experts, num_ranks);
  Ids const ids = random_ids(random, 40, 12, num_experts);
  RouteTable const table = expanded_routes(ids.view(), experts, num_ranks);
  std::vector<std::int32_t> rows(static_cast<std::size_t>(num_experts));
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(num_ranks));
  for (std::int64_t token = 0; token < ids.tokens; ++token) {
    for (int const rank : ranks_of(ids, token, experts)) ++tokens[static_cast<std::size_t>(rank)];
    auto next = table.of(token).begin();
    for (std::int64_t slot = 0; slot < ids.top_k; ++slot) {
      if (ids.at(token, slot) < 0) continue;
      ASSERT_NE(next, table.of(token).end());
      EXPECT_EQ(next->slot, slot);
      EXPECT_EQ(next->expert, ids.at(token, slot));
      EXPECT_EQ(next->rank, experts.rank_of(next->expert));
      EXPECT_EQ(next->row, rows[static_cast<std::size_t>(next->expert)]++);
      ++next;
    }
    EXPECT_EQ(next, table.of(token).end());
  }
  EXPECT_EQ(table.rows_per_rank, tokens);
}

TEST(FlatRoutes, OneRowForEachRankOfAToken) {
  Random random(7);
  for (int const num_ranks : {1, 3, 64, 65, 200, 1000}) {
    int const num_experts = 3 * num_ranks + 1;
    ExpertSplit const experts(num_experts, num_ranks);
    Ids const ids = random_ids(random, 40, 12, num_experts);
    RouteTable const table = flat_routes(ids.view(), experts, num_ranks);
    ASSERT_EQ(table.num_tokens(), ids.tokens);
    std::vector<std::int32_t> rows(static_cast<std::size_t>(num_ranks));
    for (std::int64_t token = 0; token < ids.tokens; ++token) {
      std::vector<int> const expected = ranks_of(ids, token, experts);
      auto const routes = table.of(token);
      ASSERT_EQ(routes.size(), expected.size());
      auto next = expected.begin();
      for (Route const& route : routes) {
        EXPECT_EQ(route.rank, *next);
        EXPECT_EQ(route.row, rows[static_cast<std::size_t>(*next++)]++);
      }
    }
    for (int rank = 0; rank < num_ranks; ++rank) {
      auto const at = static_cast<std::size_t>(rank);
      EXPECT_EQ(table.rows_per_rank[at], rows[at]);
    }
  }
}

// get_layout() needs no ranks, and so any number of them.
TEST(FlatRoutes, LayoutOfAJobOfManyNodes) {
  constexpr int num_ranks = 512;
  Random random(11);
  Ids const ids = random_ids(random, 9, 8, num_ranks);
  Layout const layout = get_layout(ids.view(), num_ranks, num_ranks);
  ExpertSplit const experts(num_ranks, num_ranks);
  for (std::int64_t token = 0; token < ids.tokens; ++token) {
    std::vector<int> const expected = ranks_of(ids, token, experts);
    for (int rank = 0; rank < num_ranks; ++rank)
      EXPECT_EQ(layout.is_token_in_rank.data<std::uint8_t>()[token * num_ranks + rank],
                std::ranges::count(expected, rank));
  }
}

}  // namespace
}  // namespace switchyard::test
