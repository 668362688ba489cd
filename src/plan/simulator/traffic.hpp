// What a call moves over which resource, counted from the routing of its tokens.
#pragma once

#include <cstdint>
#include <span>

#include "plan/simulator/job.hpp"

namespace switchyard::simulator {

// Where the tokens of one source go: [tokens, top_k] ids, -1: no expert.
struct SourceIds {
  int rank = 0;
  std::span<std::int32_t const> ids;
};

// How much more than the average some ranks receive: ratios to the mean of all ranks.
struct Skew {
  double median = 1;
  double p90 = 1;
  double max = 1;
};

// Of one rank, the mean of the sources that were counted.
struct Traffic {
  double rank_rows = 0;  // (token, rank) or, where rows go by slots, slots: its own included
  double node_rows = 0;  // (token, node), its own included
  double link_rows = 0;  // that a rank sends, or passes on, to others of a node
  double nic_rows = 0;   // that it sends to other nodes
  double dispatch_link_bytes = 0;
  double dispatch_nic_bytes = 0;
  double combine_link_bytes = 0;
  double combine_nic_bytes = 0;
  double dispatch_messages = 0;  // that go to other nodes
  double combine_messages = 0;
  Skew link{};
  Skew nic{};
  int sources = 0;  // that were counted, of all
};

// Counts each source's rows by our own plan of the routing (layout/scale_out): exact for those sources. What ranks
// receive is scaled from them to all. Throws InvalidArgument for ids that are no expert's.
Traffic count_traffic(Job const& job, Topology const& topology, std::span<SourceIds const> sources);

}  // namespace switchyard::simulator
