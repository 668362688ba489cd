// The latency benchmark of one rank.
#pragma once

#include "cli/bench/footprint.hpp"
#include "cli/bench/options.hpp"
#include "cli/bench/shared_barrier.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// Collective. Rank 0 prints the results. Returns the exit status of the rank: 1 when a check found a mismatch.
// `barrier` is null when the ranks were not forked by us.
int run_rank_latency(BenchOptions const& options, Router const& route, Communicator communicator,
                     SharedBarrier* barrier);

}  // namespace switchyard::cli
