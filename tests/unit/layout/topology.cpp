// Ranks of a job and local ranks of its nodes: each the other's inverse, for nodes of any sizes; and rails.
#include "layout/topology.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

TEST(Topology, EveryRankHasItsPlace) {
  for (std::vector<int> const& sizes : {std::vector{1}, {8}, {8, 8, 8, 8}, {3, 1, 64, 2}}) {
    Topology const topology = Topology::of_sizes(sizes);
    ASSERT_EQ(topology.num_nodes(), static_cast<int>(sizes.size()));
    int rank = 0;
    for (int node = 0; node < topology.num_nodes(); ++node) {
      EXPECT_EQ(topology.num_ranks_of(node), sizes[static_cast<std::size_t>(node)]);
      for (int local = 0; local < topology.num_ranks_of(node); ++local, ++rank) {
        EXPECT_EQ(topology.node_of(rank), node);
        EXPECT_EQ(topology.local_rank_of(rank), local);
        EXPECT_EQ(topology.rank_of(node, local), rank);
      }
    }
    EXPECT_EQ(topology.num_ranks(), rank);
  }
}

// As mpirun --map-by node numbers them: neighbours in rank are on different nodes.
TEST(Topology, RanksOfANodeNeedNotBeConsecutive) {
  Topology const topology(std::vector{0, 1, 2, 0, 1, 2, 0});
  EXPECT_EQ(topology.num_nodes(), 3);
  EXPECT_EQ(topology.num_ranks_of(0), 3);
  EXPECT_EQ(topology.num_ranks_of(2), 2);
  EXPECT_EQ(topology.rank_of(0, 2), 6);
  EXPECT_EQ(topology.local_rank_of(4), 1);
  EXPECT_EQ(topology.node_of(5), 2);
}

// What rails must do, from their purpose: every rank has one peer on each other node, of the same local rank where
// that exists; neighbours are so for each other; and each node hears every rank of every other node.
TEST(Topology, Rails) {
  for (std::vector<int> const& sizes : {std::vector{4, 4}, {8, 8, 8}, {1, 3, 2, 64}, {1, 1, 1}, {5}}) {
    Topology const topology = Topology::of_sizes(sizes);
    for (int rank = 0; rank < topology.num_ranks(); ++rank) {
      std::vector<int> const neighbours = topology.rail_neighbours_of(rank);
      for (int node = 0; node < topology.num_nodes(); ++node) {
        if (node == topology.node_of(rank)) continue;
        int const peer = topology.rail_peer(rank, node);
        EXPECT_EQ(topology.node_of(peer), node);
        int const local = topology.local_rank_of(rank);
        EXPECT_TRUE(local >= topology.num_ranks_of(node) || topology.local_rank_of(peer) == local);
        EXPECT_TRUE(std::ranges::count(neighbours, peer) == 1) << rank << " has no link to " << peer;
      }
      for (int const neighbour : neighbours) {
        EXPECT_NE(topology.node_of(neighbour), topology.node_of(rank));
        std::vector<int> const theirs = topology.rail_neighbours_of(neighbour);
        EXPECT_EQ(std::ranges::count(theirs, rank), 1) << neighbour << " does not know " << rank;
      }
    }
  }
}

TEST(Topology, MasksHoldEveryLocalRank) {
  LocalRankMask all = 0;
  for (int local = 0; local < max_node_ranks; ++local) {
    EXPECT_EQ(all & mask_of(local), 0U);
    all |= mask_of(local);
  }
  EXPECT_EQ(~all, 0U);
}

TEST(Topology, RefusesNonsense) {
  using Sizes = std::vector<int>;
  EXPECT_THROW(Topology(Sizes{}), InvalidArgument);
  EXPECT_THROW(Topology(Sizes{0, 2}), InvalidArgument);  // no rank on node 1
  EXPECT_THROW(Topology(Sizes{0, -1}), InvalidArgument);
  EXPECT_THROW(Topology::of_sizes(Sizes{4, 0}), InvalidArgument);
  EXPECT_THROW(Topology::of_sizes(Sizes{max_node_ranks + 1}), InvalidArgument);
  EXPECT_THROW(Topology::of_sizes(Sizes(static_cast<std::size_t>(max_ranks / max_node_ranks + 1), max_node_ranks)),
               InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
