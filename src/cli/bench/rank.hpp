// The benchmark of one rank.
#pragma once

#include <optional>
#include <vector>

#include "cli/bench/case.hpp"
#include "cli/bench/report.hpp"
#include "cli/bench/shared_barrier.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// Collective. Rank 0 prints the results. Returns the exit status of the rank: 1 when a check found a mismatch.
// `cases` share their options. `barrier`: null where there is none in memory that all ranks share.
int run_rank(std::vector<Case> const& cases, Communicator const& communicator, SharedBarrier* barrier);

// The same without a word, but for mismatches, which leave nothing. Cases are reported on rank 0 alone.
std::optional<Report> measure_rank(std::vector<Case> const& cases, Communicator const& communicator,
                                   SharedBarrier* barrier);

}  // namespace switchyard::cli
