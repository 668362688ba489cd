// Where ranks wait for one another before they are timed.
#pragma once

#include <chrono>
#include <cstdint>

#include "cli/bench/shared_barrier.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// Ranks fill and check data at different speeds; only after that may they differ by this much.
inline constexpr std::chrono::milliseconds check_allowance{20000};

class StartLine {
 public:
  // `barrier` is null where there is none in memory that all ranks share: then the job's own is used, and each rank
  // has a moment of its own, by the clock of its machine. Timeout 0: as configured.
  StartLine(Communicator const& communicator, SharedBarrier* barrier, std::chrono::milliseconds timeout);
  // Waits for all ranks and returns the moment when all were there (CLOCK_MONOTONIC, ns).
  std::int64_t align(std::chrono::milliseconds allowance = std::chrono::milliseconds{0});

 private:
  Communicator communicator_;
  SharedBarrier* barrier_;
  std::chrono::milliseconds timeout_;
};

}  // namespace switchyard::cli
