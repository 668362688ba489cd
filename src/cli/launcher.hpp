// Runs N ranks as children of this process and looks after them.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "cli/bench/shared_barrier.hpp"

namespace switchyard::cli {

// What a rank gets to know.
struct RankContext {
  int rank = 0;
  int size = 1;
  std::string address;  // where this process serves the store
  std::string token;
  SharedBarrier* barrier = nullptr;
};

struct LaunchOptions {
  int ranks = 1;
  // After a rank failed, the others find out by themselves; those that have not ended by then are ended.
  std::chrono::milliseconds grace{5000};
};

// Forks the ranks, serves the store they meet at, and looks after them until all have ended. Each rank runs
// `body` and exits with what it returns. Returns the exit status of the command: 0 when all ranks returned 0; 1
// when one failed, after saying on stderr which and how; 128 + signal when this process was interrupted. Every
// child is reaped, and none outlives this process. Call it before any thread exists.
int run_local_ranks(LaunchOptions const& options, std::function<int(RankContext const&)> const& body);

}  // namespace switchyard::cli
