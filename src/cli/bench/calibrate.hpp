// `switchyard bench --calibrate`: times calls of both modes, and writes what they say of this machine.
#pragma once

#include <vector>

#include "cli/bench/case.hpp"
#include "cli/bench/shared_barrier.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// What is timed in a mode, each count of tokens by itself. Throws InvalidArgument for too few counts.
std::vector<BenchOptions> calibration_options(BenchOptions const& options, Mode mode);

struct CalibrationCases {
  std::vector<Case> throughput{};
  std::vector<Case> latency{};
};

// Collective. Rank 0 writes the file, and prints what it found. Returns the exit status of the rank.
int calibrate(CalibrationCases const& cases, Communicator communicator, SharedBarrier* barrier);

}  // namespace switchyard::cli
