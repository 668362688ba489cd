// Ranks as threads of this process.
#pragma once

#include <vector>

#include "support/outcome.hpp"

namespace switchyard::test {

// `nodes`: by rank, the node that it plays to be on; empty: they share one.
std::vector<Outcome> run_as_threads(int ranks, RankBody const& body, std::vector<int> const& nodes = {});

}  // namespace switchyard::test
