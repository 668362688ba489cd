// Properties of the benchmark's routings.
#include "oracle/routing.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "oracle/expected.hpp"
#include "oracle/payload.hpp"
#include "switchyard/error.hpp"

namespace switchyard::oracle {
namespace {

Problem small(int experts, int top_k, int ranks = 3) {
  return {.ranks = ranks, .tokens = 200, .hidden = 8, .top_k = top_k, .experts = experts, .seed = 5};
}

// Experts of a token, all within range; checks that none is named twice and that -1 comes last.
std::set<int> experts_of_token(Problem const& problem, std::span<std::int32_t const> ids) {
  std::set<int> found;
  bool ended = false;
  for (std::int32_t const id : ids) {
    EXPECT_GE(id, -1);
    EXPECT_LT(id, problem.experts);
    ended = ended || id == -1;
    if (ended) {
      EXPECT_EQ(id, -1);
    } else {
      EXPECT_TRUE(found.insert(id).second);
    }
  }
  return found;
}

template <typename Visit>
void for_each_token(Problem const& problem, RoutingTable const& table, Visit&& visit) {
  for (int rank = 0; rank < problem.ranks; ++rank) {
    for (std::int64_t t = 0; t < problem.tokens; ++t) visit(table.token(rank, t));
  }
}

class EveryRouting : public testing::TestWithParam<RoutingKind> {};

TEST_P(EveryRouting, NamesDistinctExpertsAndFillsTheRest) {
  for (auto const& [experts, top_k] : {std::pair{256, 8}, {10, 4}, {3, 8}, {1, 1}, {7, 7}, {64, 64}}) {
    Problem const problem = small(experts, top_k);
    auto const table = make_routing(problem, GetParam());
    auto const most = static_cast<std::size_t>(std::min(experts, top_k));
    for_each_token(problem, table, [&](auto ids) {
      auto const found = experts_of_token(problem, ids).size();
      if (GetParam() == RoutingKind::all_to_one) {
        EXPECT_LE(found, most);
      } else {
        EXPECT_EQ(found, most);
      }
    });
  }
}

TEST_P(EveryRouting, DependsOnTheSeedAlone) {
  Problem problem = small(64, 4);
  auto const first = make_routing(problem, GetParam());
  auto const again = make_routing(problem, GetParam());
  ++problem.seed;
  auto const other = make_routing(problem, GetParam());
  bool differs = false;
  for (std::int64_t t = 0; t < problem.tokens; ++t) {
    EXPECT_TRUE(std::ranges::equal(first.token(1, t), again.token(1, t)));
    differs = differs || !std::ranges::equal(first.token(1, t), other.token(1, t));
  }
  EXPECT_EQ(differs, GetParam() != RoutingKind::all_to_one);
}

INSTANTIATE_TEST_SUITE_P(Kinds, EveryRouting,
                         testing::Values(RoutingKind::uniform, RoutingKind::group_limited, RoutingKind::zipf,
                                         RoutingKind::all_to_one));

TEST(Routing, UniformHitsAllExpertsAlike) {
  Problem const problem = small(16, 4, 8);
  std::map<int, int> hits;
  for_each_token(problem, make_routing(problem, RoutingKind::uniform), [&](auto ids) {
    for (auto const id : ids) ++hits[id];
  });
  double const mean = 8 * 200 * 4 / 16.0;
  for (int expert = 0; expert < 16; ++expert) EXPECT_NEAR(hits[expert], mean, mean * 0.2);
}

TEST(Routing, GroupLimitedStaysInFourOfEightGroups) {
  Problem const problem = small(256, 8);
  for_each_token(problem, make_routing(problem, RoutingKind::group_limited), [&](auto ids) {
    std::set<int> groups;
    for (auto const id : ids) groups.insert(id / 32);
    EXPECT_LE(groups.size(), 4U);
  });
}

TEST(Routing, ZipfFavoursFewExperts) {
  Problem const problem = small(64, 1);
  std::map<int, int> hits;
  for_each_token(problem, make_routing(problem, RoutingKind::zipf), [&](auto ids) { ++hits[ids[0]]; });
  int most = 0;
  for (auto const& [expert, count] : hits) most = std::max(most, count);
  EXPECT_GT(most, 4 * 3 * 200 / 64);
}

TEST(Routing, AllToOneStaysOnRankZero) {
  Problem const problem = small(7, 5);  // rank 0 holds 3 experts
  for_each_token(problem, make_routing(problem, RoutingKind::all_to_one), [&](auto ids) {
    EXPECT_EQ(std::vector<std::int32_t>(ids.begin(), ids.end()), (std::vector<std::int32_t>{0, 1, 2, -1, -1}));
  });
}

TEST(Routing, ReplayWrapsAround) {
  Problem problem = small(10, 2, 2);
  problem.tokens = 2;
  auto const table =
      make_routing(problem, RoutingKind::replay, {.rows = 3, .columns = 2, .ids = {0, 1, 2, -1, 4, 5}});
  EXPECT_EQ(table.token(0, 1)[0], 2);
  EXPECT_EQ(table.token(0, 1)[1], -1);
  EXPECT_EQ(table.token(1, 0)[0], 4);
  EXPECT_EQ(table.token(1, 1)[0], 0);
}

TEST(Routing, ReplayRefusesWhatDoesNotFit) {
  Problem const problem = small(10, 2);
  auto const refuse = [&](std::int64_t columns, std::vector<std::int64_t> ids) {
    IdTable const table{.rows = std::ssize(ids) / columns, .columns = columns, .ids = std::move(ids)};
    EXPECT_THROW(make_routing(problem, RoutingKind::replay, table), InvalidArgument);
  };
  refuse(3, {0, 1, 2});
  refuse(2, {0, 10});
  refuse(2, {-2, 1});
  refuse(2, {std::int64_t{1} << 32U, 1});
  refuse(2, {4, 4});
}

TEST(Expected, ExpertsAreSplitWithoutGaps) {
  for (auto const& [experts, ranks] : {std::pair{256, 8}, {10, 4}, {3, 8}, {64, 64}, {65, 64}}) {
    Problem const problem = small(experts, 1, ranks);
    int next = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      auto const range = experts_of(problem, rank);
      EXPECT_EQ(range.begin, next);
      next = range.end;
      for (int e = range.begin; e < range.end; ++e) EXPECT_EQ(rank_of_expert(problem, e), rank);
    }
    EXPECT_EQ(next, experts);
  }
}

TEST(Expected, WhatIsSentIsReceived) {
  for (auto const layout : {OutputLayout::flat, OutputLayout::expanded}) {
    Problem problem = small(10, 4);
    problem.layout = layout;
    auto const table = make_routing(problem, RoutingKind::uniform);
    auto const traffic = count_traffic(problem, table);
    std::int64_t sent = 0;
    std::int64_t received = 0;
    for (int rank = 0; rank < problem.ranks; ++rank) {
      auto const& mine = traffic[static_cast<std::size_t>(rank)];
      EXPECT_EQ(mine.received_rows, std::ssize(received_rows(terms_of(problem), SeededData(problem, table), rank)));
      sent += mine.sent_rows;
      received += mine.received_rows;
    }
    EXPECT_EQ(sent, received);
    if (layout == OutputLayout::expanded) {
      EXPECT_EQ(sent, problem.ranks * problem.tokens * problem.top_k);
    }
  }
}

}  // namespace
}  // namespace switchyard::oracle
