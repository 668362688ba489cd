// The benchmark of one rank.
#pragma once

#include <vector>

#include "cli/bench/options.hpp"
#include "cli/bench/shared_barrier.hpp"
#include "oracle/expected.hpp"
#include "oracle/routing.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

using oracle::Traffic;

// The same on all ranks.
struct BenchPlan {
  BenchOptions options;
  RoutingTable routing;
  std::vector<Traffic> traffic;  // by rank
};

// Collective. Rank 0 prints the results. Returns the exit status of the rank: 1 when a check found a mismatch.
// `barrier` is null when the ranks were not forked by us.
int run_rank_bench(BenchPlan const& plan, Communicator communicator, SharedBarrier* barrier);

}  // namespace switchyard::cli
