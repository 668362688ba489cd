// Which groups share a domain: a list of units, domain by domain, equally many each.
#pragma once

#include <span>
#include <vector>

#include "plan/experts/cluster.hpp"
#include "plan/experts/fixed_point.hpp"

namespace switchyard::experts {

template <typename T>
std::vector<T> unit_loads(Cluster const& cluster, std::span<T const> loads) {
  std::vector<T> sums(static_cast<std::size_t>(cluster.units()), 0);
  for (std::size_t i = 0; i < loads.size(); ++i)
    sums[static_cast<std::size_t>(cluster.unit_of(static_cast<int>(i)))] += loads[i];
  return sums;
}

// The load of each domain.
std::vector<Amount> domain_loads(Cluster const& cluster, std::span<Amount const> loads, std::span<int const> units);

// The units as a map of slots has them, ascending in each domain; empty if its domains are not made of whole units.
std::vector<int> units_of(Cluster const& cluster, std::span<int const> slots);

// Two units change places, and again two, as long as that makes the heaviest domain lighter and it has more than
// `enough`.
std::vector<int> even_out(Cluster const& cluster, std::span<Amount const> loads, std::vector<int> units,
                          Amount enough);

// The map in which each unit of `to` stands where the unit at the same place of `from` stood, expert by expert.
std::vector<int> exchanged(Cluster const& cluster, std::span<int const> slots, std::span<int const> from,
                           std::span<int const> to);

}  // namespace switchyard::experts
