// Who acts for whom on which node, against the purpose: on every node each rank of the job is served once, by its
// rail peer there, or by itself.
#include "layout/served_ranks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "layout/node_in_job.hpp"
#include "support/node_job.hpp"

namespace switchyard::test {
namespace {

// By rank, the node: sizes alike, odd, of one rank, much larger than others, and ranks that do not follow one
// another.
std::vector<std::vector<int>> topologies() {
  std::vector<std::vector<int>> all{{0},          {0, 0, 0},       {0, 1},          {0, 0, 1, 1},
                                    {0, 1, 0, 1}, {0, 1, 1, 0, 2}, {0, 1, 2, 3, 4}, {1, 0, 0, 0, 0, 0, 0}};
  for (std::uint64_t seed = 0; seed < 200; ++seed) all.push_back(random_node_job(seed).node_by_rank);
  std::vector<int> uneven(64, 0);
  uneven.push_back(1);
  all.push_back(uneven);
  return all;
}

// The number of a rank among those of its node.
int local_rank(std::vector<int> const& nodes, int rank) {
  return static_cast<int>(std::count(nodes.begin(), nodes.begin() + rank, nodes[static_cast<std::size_t>(rank)]));
}

// The local rank that acts for `rank` on `node`: its own, counted round where the node has fewer ranks.
int who_serves(std::vector<int> const& nodes, int rank, int node) {
  return local_rank(nodes, rank) % static_cast<int>(std::ranges::count(nodes, node));
}

template <typename Visit>
void for_each_node(Visit const& visit) {
  for (std::vector<int> const& nodes : topologies()) {
    SCOPED_TRACE(testing::PrintToString(nodes));
    for (int node = 0; node <= *std::ranges::max_element(nodes); ++node) visit(nodes, node);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(ServedRanks, EveryRankOfTheJobIsServedOnceByTheRightRank) {
  for_each_node([](std::vector<int> const& nodes, int node) {
    ServedRanks const served(Topology(nodes), node);
    std::vector<int> times(nodes.size(), 0);
    auto const size = static_cast<int>(std::ranges::count(nodes, node));
    for (int local = 0; local < size; ++local) {
      for (int const rank : served.of(local)) {
        ++times.at(static_cast<std::size_t>(rank));
        EXPECT_EQ(who_serves(nodes, rank, node), local) << "node " << node << ", rank " << rank;
      }
    }
    EXPECT_EQ(times, std::vector<int>(nodes.size(), 1)) << "node " << node;
  });
}

TEST(ServedRanks, ARankIsTheFirstThatItServesAndOthersFollowInTheirOrder) {
  for_each_node([](std::vector<int> const& nodes, int node) {
    ServedRanks const served(Topology(nodes), node);
    for (int rank = 0; rank < static_cast<int>(nodes.size()); ++rank) {
      if (nodes[static_cast<std::size_t>(rank)] != node) continue;
      auto const of = served.of(local_rank(nodes, rank));
      ASSERT_FALSE(of.empty());
      EXPECT_EQ(of[0], rank);
      EXPECT_TRUE(std::ranges::is_sorted(of.subspan(1)));
      EXPECT_LE(of.size(), static_cast<std::size_t>(served.most()));
    }
  });
}

TEST(ServedRanks, PlacesAreWhereTheListsHaveThem) {
  for_each_node([](std::vector<int> const& nodes, int node) {
    ServedRanks const served(Topology(nodes), node);
    std::size_t most = 0;
    for (int rank = 0; rank < static_cast<int>(nodes.size()); ++rank) {
      auto const [local, index] = served.place_of(rank);
      auto const of = served.of(local);
      ASSERT_LT(static_cast<std::size_t>(index), of.size());
      EXPECT_EQ(of[static_cast<std::size_t>(index)], rank);
      most = std::max(most, of.size());
    }
    EXPECT_EQ(served.most(), static_cast<int>(most)) << "node " << node;
  });
}

// One rank next to a node of 64: it serves all of them, and of them one serves it.
TEST(ServedRanks, OneRankServesALargeNodeAlone) {
  std::vector<int> const sizes{64, 1};
  Topology const topology = Topology::of_sizes(sizes);
  EXPECT_EQ(ServedRanks(topology, 1).most(), 65);
  EXPECT_EQ(ServedRanks(topology, 0).most(), 2);
  EXPECT_EQ(ServedRanks(topology, 0).place_of(64).local_rank, 0);
}

TEST(NodeInJob, KnowsItsRanks) {
  for_each_node([](std::vector<int> const& nodes, int node) {
    NodeInJob const here(Topology(nodes), node);
    EXPECT_EQ(here.node(), node);
    EXPECT_EQ(here.num_ranks(), static_cast<int>(nodes.size()));
    EXPECT_EQ(here.is_alone(), std::ranges::count(nodes, nodes[0]) == static_cast<std::ptrdiff_t>(nodes.size()));
    int local = 0;
    for (int rank = 0; rank < here.num_ranks(); ++rank) {
      bool const ours = nodes[static_cast<std::size_t>(rank)] == node;
      EXPECT_EQ(here.has(rank), ours);
      if (ours) {
        EXPECT_EQ(here.rank_of(local++), rank);
      }
    }
    EXPECT_EQ(here.topology().num_ranks_of(node), local);
  });
}

// What it serves is found from the topology that it keeps, not from the one that it was made from.
TEST(NodeInJob, OutlivesItsTopology) {
  auto const make = [] { return NodeInJob(Topology(std::vector{0, 1, 1}), 1); };
  NodeInJob const here = make();
  EXPECT_EQ(here.served().place_of(0).local_rank, 0);
  EXPECT_EQ(here.served().of(0).size(), 2U);
  EXPECT_EQ(here.rank_of(1), 2);
}

}  // namespace
}  // namespace switchyard::test
