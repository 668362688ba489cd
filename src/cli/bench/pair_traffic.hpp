// What a case's routing sends from each rank to each, and to each expert.
#pragma once

#include <vector>

#include "cli/bench/case.hpp"

namespace switchyard::cli {

// Means over the input sets.
struct PairTraffic {
  std::vector<std::vector<double>> rows;           // [R, R]: source, then receiver
  std::vector<std::vector<double>> expert_tokens;  // [R, E]: source, then expert; a slot of the top-k is a token
};
PairTraffic pair_traffic(Case const& of);

}  // namespace switchyard::cli
