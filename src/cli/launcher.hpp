// Runs N ranks as children of this process and looks after them.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "cli/bench/shared_barrier.hpp"

namespace switchyard::cli {

// What a rank gets to know.
struct RankContext {
  int rank = 0;
  int size = 1;
  std::string address;  // where this process serves the store
  std::string token;
  std::string node{};                // that it plays to be on, as in CommunicatorOptions; empty: it plays none
  SharedBarrier* barrier = nullptr;  // none for ranks of several nodes, which share no memory but within a node
};

struct LaunchOptions {
  int ranks = 1;
  int nodes = 1;  // that they play to be on; see divide_into_nodes()
  // After a rank failed, the others find out by themselves; those that have not ended by then are ended.
  std::chrono::milliseconds grace{5000};
};

// By rank, its node: ranks are divided evenly, in their order, and the first ranks % nodes nodes have one more.
std::vector<int> divide_into_nodes(int ranks, int nodes);

// Forks the ranks, serves the store they meet at, and looks after them until all have ended. Each rank runs
// `body` and exits with what it returns. Returns the exit status of the command: 0 when all ranks returned 0; 1
// when one failed, after saying on stderr which and how; 128 + signal when this process was interrupted. Every
// child is reaped, and none outlives this process. Call it before any thread exists.
int run_local_ranks(LaunchOptions const& options, std::function<int(RankContext const&)> const& body);

}  // namespace switchyard::cli
