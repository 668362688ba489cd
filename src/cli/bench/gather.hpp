// What the ranks tell one another around the measurement.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/bench/report.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// Any numbers of all ranks, by rank. Collective.
std::vector<std::vector<double>> gather_numbers(Communicator& communicator, std::span<double const> mine);

// The samples of all ranks, by rank. Collective.
std::vector<RankSamples> gather_samples(Communicator& communicator, RankSamples const& mine);

// The mismatches that any rank found. Collective.
std::vector<std::string> gather_mismatches(Communicator& communicator, std::optional<std::string> const& mine);

// The smallest of the ranks' values. Collective.
std::int64_t gather_min(Communicator& communicator, std::int64_t mine);

}  // namespace switchyard::cli
