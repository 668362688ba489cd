// What the ranks tell one another around the measurement.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench/samples.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// The samples of all ranks, by rank. Collective.
std::vector<Samples> gather_samples(Communicator& communicator, Samples const& mine);

// The mismatches that any rank found. Collective.
std::vector<std::string> gather_mismatches(Communicator& communicator, std::optional<std::string> const& mine);

// How many ranks bring what this one brings. Collective.
int count_same(Communicator& communicator, std::string const& mine);

// The smallest of the ranks' values. Collective.
std::int64_t gather_min(Communicator& communicator, std::int64_t mine);

}  // namespace switchyard::cli
