// The benchmark of one rank.
#pragma once

#include <vector>

#include "cli/bench/case.hpp"
#include "cli/bench/shared_barrier.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// Where a rank runs.
struct RankPlace {
  SharedBarrier* barrier = nullptr;  // null where there is none in memory that all ranks share
  int on_machine = 1;                // ranks of this machine, which share its cores
};

// Collective. Rank 0 prints the results. Returns the exit status of the rank: 1 when a check found a mismatch.
// `cases` share their options.
int run_rank(std::vector<Case> const& cases, Communicator const& communicator, RankPlace const& place);

}  // namespace switchyard::cli
