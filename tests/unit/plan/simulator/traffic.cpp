// What a call moves, against a count that knows nothing of plans: token by token, by sets.
#include "plan/simulator/traffic.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "support/random.hpp"
#include "switchyard/error.hpp"

namespace switchyard::simulator {
namespace {

using test::Random;

Machine machine_of(int gpus_per_node) {
  Machine machine = known_machine("h100");
  machine.gpus_per_node = gpus_per_node;
  return machine;
}

// By source: the ids of its tokens, of which some are -1, and none is there twice in a token.
std::vector<std::vector<std::int32_t>> random_routing(Random& random, Job const& job) {
  std::vector<std::vector<std::int32_t>> routing;
  bool const skewed = random.between(0, 1) == 1;
  for (int source = 0; source < job.ranks; ++source) {
    std::vector<std::int32_t> ids;
    for (std::int64_t token = 0; token < job.tokens; ++token) {
      std::set<std::int32_t> seen;
      for (int slot = 0; slot < job.top_k; ++slot) {
        int const most = skewed ? std::max(1, job.experts / 3) : job.experts;
        auto const id = static_cast<std::int32_t>(random.between(0, most - 1));
        bool const used = random.between(0, 7) > 0 && seen.insert(id).second;
        ids.push_back(used ? id : -1);
      }
    }
    routing.push_back(ids);
  }
  return routing;
}

std::vector<SourceIds> sources_of(std::vector<std::vector<std::int32_t>> const& routing) {
  std::vector<SourceIds> sources;
  for (std::size_t rank = 0; rank < routing.size(); ++rank)
    sources.push_back({.rank = static_cast<int>(rank), .ids = routing[rank]});
  return sources;
}

// Rows of all sources together.
struct Count {
  double rank_rows = 0;
  double node_rows = 0;
  double link_rows = 0;
  double nic_rows = 0;
};

// The expert's rank by its definition: contiguous ranges, the first ones one longer.
int owner_of(int expert, int experts, int ranks) {
  for (int rank = 0, first = 0; rank < ranks; ++rank) {
    first += experts / ranks + (rank < experts % ranks ? 1 : 0);
    if (expert < first) return rank;
  }
  return -1;
}

void count_token(Job const& job, int source, std::vector<int> const& owners, Count& count) {
  auto const& over = job.figures().nodes;
  int const each = job.machine->gpus_per_node;
  std::set<int> const ranks(owners.begin(), owners.end());
  std::map<int, std::set<int>> by_node;
  for (int const rank : ranks) by_node[rank / each].insert(rank);
  count.node_rows += static_cast<double>(by_node.size());
  std::vector<int> rows = over.row_per_slot ? owners : std::vector<int>(ranks.begin(), ranks.end());
  count.rank_rows += static_cast<double>(rows.size());
  for (int const rank : rows) {
    int const node = rank / each;
    bool const home = node == source / each;
    int const size = std::min(each, job.ranks - node * each);
    int const entry = home ? source : node * each + source % each % size;
    bool const by_link = home || over.crossing == Crossing::per_node;
    if (by_link && rank != entry) ++count.link_rows;
  }
  for (auto const& [node, there] : by_node) {
    if (node == source / each) continue;
    if (over.crossing == Crossing::per_node) ++count.nic_rows;
    if (over.crossing == Crossing::per_rank) count.nic_rows += static_cast<double>(there.size());
    if (over.crossing == Crossing::per_slot)
      for (int const owner : owners) count.nic_rows += owner / each == node ? 1 : 0;
  }
}

Count count_all(Job const& job, std::vector<std::vector<std::int32_t>> const& routing) {
  Count count;
  for (int source = 0; source < job.ranks; ++source) {
    for (std::int64_t token = 0; token < job.tokens; ++token) {
      std::vector<int> owners;
      for (int slot = 0; slot < job.top_k; ++slot) {
        int const id =
            routing[static_cast<std::size_t>(source)][static_cast<std::size_t>(token * job.top_k + slot)];
        if (id >= 0) owners.push_back(owner_of(id, job.experts, job.ranks));
      }
      count_token(job, source, owners, count);
    }
  }
  return count;
}

TEST(SimulatorTraffic, RowsAreThoseOfACountBySets) {
  Random random(20);
  for (int round = 0; round < 200; ++round) {
    Machine const machine = machine_of(random.between(1, 5));
    for (Library const& library : libraries()) {
      Mode const mode = library.has_throughput && round % 2 == 0 ? Mode::throughput : Mode::latency;
      int const ranks = random.between(1, 12);
      Job const job{.machine = &machine,
                    .library = &library,
                    .mode = mode,
                    .ranks = ranks,
                    .tokens = random.between(1, 20),
                    .top_k = random.between(1, 4),
                    .experts = random.between(std::max(4, ranks), 40),
                    .payload_bytes = 256,
                    .scale_bytes = 8,
                    .output_bytes = 512};
      auto const routing = random_routing(random, job);
      auto const expected = count_all(job, routing);
      auto const seen = count_traffic(job, topology_of(job), sources_of(routing));
      SCOPED_TRACE(testing::Message() << library.name << " round " << round << " ranks " << ranks << " a node "
                                      << machine.gpus_per_node);
      EXPECT_NEAR(seen.rank_rows * ranks, expected.rank_rows, 1e-6);
      EXPECT_NEAR(seen.node_rows * ranks, expected.node_rows, 1e-6);
      EXPECT_NEAR(seen.link_rows * ranks, expected.link_rows, 1e-6);
      EXPECT_NEAR(seen.nic_rows * ranks, expected.nic_rows, 1e-6);
      // What goes along with rows is ours alone, but for what a library's figures say.
      auto const& figures = job.figures();
      double const row = 264 + figures.row_extra + figures.slot_extra * job.top_k;
      if (library.name == "switchyard") {
        EXPECT_GT(seen.combine_nic_bytes * ranks + 1, expected.nic_rows * 512);
        EXPECT_GT(seen.dispatch_nic_bytes * ranks + 1, expected.nic_rows * 264);
      } else {
        EXPECT_NEAR(seen.combine_nic_bytes * ranks, expected.nic_rows * 512, 1e-3);
        EXPECT_NEAR(seen.dispatch_nic_bytes * ranks, expected.nic_rows * row, 1e-3);
      }
      EXPECT_NEAR(seen.dispatch_link_bytes * ranks, expected.link_rows * row, 1e-3);
      EXPECT_GE(seen.link.max, 1);
      EXPECT_LE(seen.link.median, seen.link.max);
    }
  }
}

// Two nodes of one rank, one token for the other: a notify message and one chunk, whose sizes are those of
// layout/scale_out/notify.hpp and chunk_layout.hpp by hand.
TEST(SimulatorTraffic, OurBytesAreThoseOfTheWire) {
  Machine const machine = machine_of(1);
  Job const job{.machine = &machine,
                .library = &library("switchyard"),
                .mode = Mode::throughput,
                .ranks = 2,
                .tokens = 1,
                .top_k = 1,
                .experts = 2,
                .payload_bytes = 128,
                .scale_bytes = 4,
                .output_bytes = 256};
  std::vector<std::vector<std::int32_t>> const routing{{1}, {0}};
  auto const seen = count_traffic(job, topology_of(job), sources_of(routing));
  double const notify = 32 + 4 * (1 + 1);  // header, rows of one rank, slots of one expert
  EXPECT_EQ(seen.nic_rows, 1);
  EXPECT_EQ(seen.dispatch_messages, 2);
  EXPECT_EQ(seen.combine_messages, 1);
  // Header 32, the stream's start 4, number 4, weight 4, expert 2, mask 1; scales at 48, the row at 64.
  EXPECT_EQ(seen.dispatch_nic_bytes, notify + 64 + 128);
  EXPECT_EQ(seen.combine_nic_bytes, 64 + 256);
}

TEST(SimulatorTraffic, OneNodeSendsNothingOverTheNetwork) {
  Machine const machine = machine_of(8);
  Job const job{.machine = &machine,
                .library = &library("switchyard"),
                .ranks = 8,
                .tokens = 4,
                .top_k = 2,
                .experts = 16,
                .payload_bytes = 64,
                .output_bytes = 128};
  Random random(3);
  auto const routing = random_routing(random, job);
  auto const seen = count_traffic(job, topology_of(job), sources_of(routing));
  EXPECT_EQ(seen.nic_rows, 0);
  EXPECT_EQ(seen.dispatch_nic_bytes + seen.combine_nic_bytes + seen.dispatch_messages, 0);
}

// A hot expert makes its rank receive more: all tokens of 4 ranks to one of them is four times the mean.
TEST(SimulatorTraffic, AHotRankIsSeen) {
  Machine const machine = machine_of(4);
  Job const job{.machine = &machine,
                .library = &library("deepep"),
                .ranks = 4,
                .tokens = 50,
                .top_k = 1,
                .experts = 4,
                .payload_bytes = 64,
                .output_bytes = 128};
  std::vector<std::vector<std::int32_t>> const routing(4, std::vector<std::int32_t>(50, 2));
  auto const seen = count_traffic(job, topology_of(job), sources_of(routing));
  EXPECT_NEAR(seen.link.max, 4, 0.01);
  EXPECT_NEAR(seen.link.median, 0, 0.01);
}

// 64 ranks with an expert each, of which the first half is more popular by `percent`.
std::vector<std::vector<std::int32_t>> halves_routing(int percent, Job const& job, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::vector<std::int32_t>> routing(static_cast<std::size_t>(job.ranks));
  for (auto& ids : routing) {
    for (std::int64_t token = 0; token < job.tokens; ++token) {
      std::set<std::int32_t> seen;
      while (static_cast<int>(seen.size()) < job.top_k) {
        int const half = random.chance(50 + percent / 2) ? 0 : 32;
        seen.insert(static_cast<std::int32_t>(half + random.between(0, 31)));
      }
      ids.insert(ids.end(), seen.begin(), seen.end());
    }
  }
  return routing;
}

// What a part of the sources says of all: the mean within what chance allows, and a spread that is not the
// sample's.
TEST(SimulatorTraffic, ASampleSaysWhatAllSay) {
  Machine const machine = machine_of(8);
  Job const job{.machine = &machine,
                .library = &library("deepep"),
                .mode = Mode::latency,
                .ranks = 64,
                .tokens = 256,
                .top_k = 4,
                .experts = 64,
                .payload_bytes = 64,
                .output_bytes = 128};
  for (int const percent : {0, 16}) {
    // A single sample's fullest rank is chance; that of several is not.
    double more = 0;
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      SCOPED_TRACE(testing::Message() << "percent " << percent << " seed " << seed);
      auto const routing = halves_routing(percent, job, seed);
      auto const sources = sources_of(routing);
      auto const all = count_traffic(job, topology_of(job), sources);
      std::vector<SourceIds> const some{sources[0], sources[21], sources[42], sources[63]};
      auto const part = count_traffic(job, topology_of(job), some);
      EXPECT_EQ(part.sources, 4);
      EXPECT_NEAR(part.nic_rows, all.nic_rows, 0.03 * all.nic_rows);
      EXPECT_NEAR(part.link.p90, all.link.p90, 0.08);
      more += (part.link.max - all.link.max) / 5;
    }
    EXPECT_NEAR(more, 0, 0.12) << "percent " << percent;
  }
}

TEST(SimulatorTraffic, WhatCannotBeIsRefused) {
  Machine machine = machine_of(2);
  machine.nodes = 2;
  Job job{.machine = &machine, .library = &library("deepep"), .ranks = 5, .tokens = 1, .top_k = 1, .experts = 8};
  EXPECT_THROW(topology_of(job), InvalidArgument);
  job.ranks = 4;
  std::vector<std::int32_t> const bad{8};
  std::vector<SourceIds> const sources{{.rank = 0, .ids = bad}};
  EXPECT_THROW(count_traffic(job, topology_of(job), sources), InvalidArgument);
  std::vector<std::int32_t> const good{7};
  std::vector<SourceIds> const stranger{{.rank = 4, .ids = good}};
  EXPECT_THROW(count_traffic(job, topology_of(job), stranger), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::simulator
