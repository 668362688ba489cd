// The greedy algorithm: what a search starts from, and what its result is measured by.
#pragma once

#include <span>
#include <vector>

#include "plan/experts/cluster.hpp"

namespace switchyard::experts {

// The groups, listed domain by domain: each domain gets equally many, the heaviest first to the domain with the
// least load. For float and double, as the rest: where sums are equal but for their rounding, these choose
// differently, and either may be the better one.
template <typename Real>
std::vector<int> pack_units(Cluster const& cluster, std::span<Real const> loads);

// The expert of each slot: replicas are counted domain by domain, and packed onto its GPUs.
template <typename Real>
std::vector<int> place_greedily(Cluster const& cluster, std::span<Real const> loads, std::span<int const> units);

}  // namespace switchyard::experts
