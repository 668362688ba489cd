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
  // `barrier` is null where there is none in memory that all ranks share: then they meet through the job. With one
  // clock, that of a machine on which all ranks are, they then agree on a moment to start at; otherwise each has a
  // moment of its own, and whoever leaves the meeting first also measures how the others leave it. Timeout 0: as
  // configured.
  struct Terms {
    SharedBarrier* barrier = nullptr;
    bool one_clock = false;
    std::chrono::milliseconds timeout{0};
  };
  StartLine(Communicator const& communicator, Terms const& terms);
  // Waits for all ranks and returns the moment at which all start (CLOCK_MONOTONIC, ns).
  std::int64_t align(std::chrono::milliseconds allowance = std::chrono::milliseconds{0});

 private:
  // Tells the others when this rank came, and waits until all know it of all.
  [[nodiscard]] std::int64_t start_together();

  Communicator communicator_;
  Terms terms_;
};

}  // namespace switchyard::cli
