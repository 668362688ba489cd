// Runs a function as every rank of a job: threads or processes, one interface.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "support/case.hpp"
#include "support/check.hpp"
#include "support/processes.hpp"
#include "support/threads.hpp"

namespace switchyard::test {

inline std::vector<Outcome> launch_ranks(Launch launch, int ranks, RankBody const& body) {
  return launch == Launch::threads ? run_as_threads(ranks, body) : run_as_processes(ranks, body);
}

// Fails the running test for every rank that failed. `context` says what to repeat it with.
template <typename Context>
bool report(std::vector<Outcome> const& outcomes, Context const& context) {
  bool ok = true;
  for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
    if (outcomes[rank].ok) continue;
    ok = false;
    ADD_FAILURE() << "rank " << rank << ": " << outcomes[rank].what << "\n  in " << context;
  }
  return ok;
}

// The usual way: every rank must succeed.
template <typename Context>
bool run_ranks(Launch launch, int ranks, Context const& context, RankBody const& body) {
  return report(launch_ranks(launch, ranks, body), context);
}

// The ranks of a case, on the nodes that they play to be on.
inline bool run_ranks(Case const& c, RankBody const& body) {
  if (c.launch == Launch::threads) return report(run_as_threads(c.ranks, body, c.nodes), c);
  auto const play = [&c](int rank) {
    if (!c.nodes.empty())
      setenv("SWITCHYARD_NODE", std::to_string(c.nodes[static_cast<std::size_t>(rank)]).c_str(), 1);
  };
  return report(Processes(c.ranks, body, play).wait(), c);
}

}  // namespace switchyard::test
