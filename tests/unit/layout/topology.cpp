// Ranks of a job and local ranks of its nodes: each the other's inverse, for nodes of any sizes.
#include "layout/topology.hpp"

#include <gtest/gtest.h>

#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

TEST(Topology, EveryRankHasItsPlace) {
  for (std::vector<int> const& sizes : {std::vector{1}, {8}, {8, 8, 8, 8}, {3, 1, 64, 2}}) {
    Topology const topology(sizes);
    ASSERT_EQ(topology.num_nodes(), static_cast<int>(sizes.size()));
    int rank = 0;
    for (int node = 0; node < topology.num_nodes(); ++node) {
      EXPECT_EQ(topology.num_ranks_of(node), sizes[static_cast<std::size_t>(node)]);
      EXPECT_EQ(topology.first_rank_of(node), rank);
      for (int local = 0; local < topology.num_ranks_of(node); ++local, ++rank) {
        EXPECT_EQ(topology.node_of(rank), node);
        EXPECT_EQ(topology.local_rank_of(rank), local);
      }
    }
    EXPECT_EQ(topology.num_ranks(), rank);
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
  EXPECT_THROW(Topology({}), InvalidArgument);
  EXPECT_THROW(Topology({4, 0}), InvalidArgument);
  EXPECT_THROW(Topology({max_node_ranks + 1}), InvalidArgument);
  EXPECT_THROW(Topology(std::vector<int>(static_cast<std::size_t>(max_ranks / max_node_ranks + 1), max_node_ranks)),
               InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
