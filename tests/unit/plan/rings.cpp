// How rings between nodes are cut, by the properties that ports and fabrics need.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "layout/control.hpp"
#include "plan/ring_plan.hpp"
#include "support/check.hpp"
#include "support/node_job.hpp"

namespace switchyard::test {
namespace {

// What a rank has of rings by default stays below this, so that placing does not push all else out of the cache.
constexpr std::size_t most_ring_bytes = std::size_t{16} << 20;
constexpr std::size_t largest_chunk = std::size_t{288} << 10;
constexpr std::size_t smallest_chunk = std::size_t{32} << 10;

Topology of_sizes(std::vector<int> const& sizes) {
  return Topology::of_sizes(sizes);
}

// The most ranks of other nodes that any rank exchanges writes with, from who writes to whom.
int most_neighbours(Topology const& nodes) {
  int most = 0;
  for (int rank = 0; rank < nodes.num_ranks(); ++rank) {
    int count = 0;
    for (int other = 0; other < nodes.num_ranks(); ++other) {
      if (nodes.node_of(other) == nodes.node_of(rank)) continue;
      bool const to = nodes.rail_peer(rank, nodes.node_of(other)) == other;
      bool const from = nodes.rail_peer(other, nodes.node_of(rank)) == rank;
      count += to || from ? 1 : 0;
    }
    most = std::max(most, count);
  }
  return most;
}

std::size_t bytes_of(RingPlan const& plan, int neighbours) {
  return plan.chunk_bytes * (static_cast<std::size_t>(plan.slots) * static_cast<std::size_t>(neighbours) +
                             static_cast<std::size_t>(plan.send_slots));
}

TEST(RingPlan, TwoNodesHaveWhatWasMeasuredToBeEnough) {
  RingPlan const plan = plan_rings(of_sizes({4, 4}), 0, {});
  EXPECT_EQ(plan.chunk_bytes, largest_chunk);
  EXPECT_EQ(plan.slots, 4);
  EXPECT_EQ(plan.send_slots, 4);
}

// A launch moves a chunk of rows that lie on a GPU, so chunks are larger there, in jobs of all sizes.
TEST(RingPlan, RowsOnGpusHaveLargerChunks) {
  EXPECT_EQ(plan_rings(of_sizes({4, 4}), 0, {.gpu_rows = true}).chunk_bytes, std::size_t{1} << 20);
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    Topology const nodes = random_node_job(seed).topology();
    RingPlan const host = plan_rings(nodes, 0, {});
    RingPlan const gpu = plan_rings(nodes, 0, {.gpu_rows = true});
    EXPECT_GE(gpu.chunk_bytes, host.chunk_bytes);
    EXPECT_LE(gpu.chunk_bytes, std::size_t{1} << 20);
    if (gpu.chunk_bytes > smallest_chunk) {
      EXPECT_LE(bytes_of(gpu, std::max(1, most_neighbours(nodes))), 4 * most_ring_bytes);
    }
    EXPECT_EQ(gpu.slots, host.slots);
    EXPECT_EQ(plan_rings(nodes, 0, {.chunk_bytes = 8192, .gpu_rows = true}).chunk_bytes, 8192U) << "as asked for";
  }
}

TEST(RingPlan, StaysWithinItsBoundsForAnyNodes) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    Topology const nodes = random_node_job(seed).topology();
    int const neighbours = std::max(1, most_neighbours(nodes));
    RingPlan const plan = plan_rings(nodes, 0, {});
    EXPECT_EQ(plan.chunk_bytes % page_bytes, 0U);
    EXPECT_GE(plan.chunk_bytes, smallest_chunk);
    EXPECT_LE(plan.chunk_bytes, largest_chunk);
    EXPECT_GE(plan.slots, 2) << "one chunk is placed while the next is on its way";
    EXPECT_GE(plan.send_slots, plan.slots) << "one neighbour can be kept busy";
    EXPECT_LE(plan.send_slots, plan.slots * neighbours) << "more than can be under way";
    if (plan.chunk_bytes > smallest_chunk) {
      EXPECT_LE(bytes_of(plan, neighbours), most_ring_bytes);
    }
  }
}

TEST(RingPlan, ManyNodesHaveSmallerChunksButNoTinyOnes) {
  std::size_t last = largest_chunk;
  for (int count = 2; count <= 300; count += 7) {
    SCOPED_TRACE(text(count, " nodes"));
    RingPlan const plan = plan_rings(of_sizes(std::vector<int>(static_cast<std::size_t>(count), 1)), 0, {});
    EXPECT_LE(plan.chunk_bytes, last);
    EXPECT_GE(plan.chunk_bytes, smallest_chunk);
    last = plan.chunk_bytes;
  }
  EXPECT_EQ(last, smallest_chunk);
}

// Rank 0 of the second node exchanges writes with all 64 of the first.
TEST(RingPlan, TheRankWithTheMostNeighboursDecides) {
  EXPECT_EQ(plan_rings(of_sizes({64, 1}), 0, {}).chunk_bytes,
            plan_rings(of_sizes(std::vector<int>(65, 1)), 0, {}).chunk_bytes);
  EXPECT_LT(plan_rings(of_sizes({64, 1}), 0, {}).chunk_bytes, plan_rings(of_sizes({64, 64}), 0, {}).chunk_bytes);
}

TEST(RingPlan, OneTokenAlwaysFits) {
  for (std::size_t const least : {std::size_t{1}, page_bytes - 1, page_bytes, page_bytes + 1, largest_chunk - 1,
                                  largest_chunk + 1, std::size_t{5} << 20, (std::size_t{1} << 30) + 17}) {
    for (std::size_t const wish : {std::size_t{0}, std::size_t{1}, std::size_t{100000}, std::size_t{1} << 20}) {
      SCOPED_TRACE(text("least ", least, ", wish ", wish));
      RingPlan const plan = plan_rings(of_sizes({3, 1, 2}), least, {.chunk_bytes = wish});
      EXPECT_GE(plan.chunk_bytes, least);
      EXPECT_EQ(plan.chunk_bytes % page_bytes, 0U);
    }
  }
}

TEST(RingPlan, DoesAsItIsAsked) {
  for (std::size_t const bytes : {std::size_t{1}, page_bytes, std::size_t{3} << 20}) {
    for (int const slots : {1, 2, 5, 1000}) {
      SCOPED_TRACE(text(bytes, " bytes, ", slots, " slots"));
      RingPlan const plan = plan_rings(of_sizes({2, 2, 1}), 0, {.chunk_bytes = bytes, .slots = slots});
      EXPECT_EQ(plan.chunk_bytes, align_up(bytes, page_bytes));
      EXPECT_EQ(plan.slots, slots);
      EXPECT_GE(plan.send_slots, plan.slots);
    }
  }
}

TEST(RingPlan, IsTheSameHoweverRanksAreNumbered) {
  RingPlan const a = plan_rings(Topology(std::vector{0, 0, 0, 1}), 5000, {});
  RingPlan const b = plan_rings(Topology(std::vector{0, 1, 0, 0}), 5000, {});
  EXPECT_EQ(a.chunk_bytes, b.chunk_bytes);
  EXPECT_EQ(a.slots, b.slots);
  EXPECT_EQ(a.send_slots, b.send_slots);
}

}  // namespace
}  // namespace switchyard::test
