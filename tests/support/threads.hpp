// Ranks as threads of this process.
#pragma once

#include <vector>

#include "support/outcome.hpp"

namespace switchyard::test {

std::vector<Outcome> run_as_threads(int ranks, RankBody const& body);

}  // namespace switchyard::test
