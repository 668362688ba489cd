#include "plan/experts/units.hpp"

#include <algorithm>
#include <utility>

namespace switchyard::experts {

namespace {

int units_per_domain(Cluster const& cluster) noexcept {
  return cluster.units() / cluster.domains();
}

// Two places in a list of units, and the load that moves from the domain of the first to that of the second.
struct UnitSwap {
  std::size_t one = 0;
  std::size_t two = 0;
  Amount moves = 0;
};

// Searches all swaps with the heaviest domain. `totals`: of the domains. moves == 0: none makes it lighter.
UnitSwap best_swap(std::span<Amount const> weights, std::span<int const> units, std::span<Amount const> totals) {
  auto const heaviest = std::max_element(totals.begin(), totals.end());
  auto const heavy = static_cast<std::size_t>(heaviest - totals.begin());
  std::size_t const each = units.size() / totals.size();
  UnitSwap best;
  Amount least = *heaviest;
  for (std::size_t one = heavy * each; one < (heavy + 1) * each; ++one) {
    for (std::size_t two = 0; two < units.size(); ++two) {
      if (two / each == heavy) continue;
      Amount const moves = weights[at(units[one])] - weights[at(units[two])];
      Amount const most = std::max(*heaviest - moves, totals[two / each] + moves);
      if (most >= least) continue;
      least = most;
      best = {one, two, moves};
    }
  }
  return best;
}

}  // namespace

std::vector<Amount> domain_loads(Cluster const& cluster, std::span<Amount const> loads,
                                 std::span<int const> units) {
  std::vector<Amount> const weights = unit_loads(cluster, loads);
  std::vector<Amount> totals(at(cluster.domains()), 0);
  for (std::size_t i = 0; i < units.size(); ++i) totals[i / at(units_per_domain(cluster))] += weights[at(units[i])];
  return totals;
}

std::vector<int> units_of(Cluster const& cluster, std::span<int const> slots) {
  std::vector<int> domain_of(at(cluster.units()), -1);
  for (int slot = 0; slot < cluster.replicas; ++slot) {
    int& domain = domain_of[at(cluster.unit_of(slots[at(slot)]))];
    if (domain >= 0 && domain != cluster.domain_of(slot)) return {};
    domain = cluster.domain_of(slot);
  }
  std::vector<int> units;
  units.reserve(domain_of.size());
  for (int domain = 0; domain < cluster.domains(); ++domain) {
    for (int unit = 0; unit < cluster.units(); ++unit)
      if (domain_of[at(unit)] == domain) units.push_back(unit);
    if (units.size() != at((domain + 1) * units_per_domain(cluster))) return {};
  }
  return units;
}

std::vector<int> even_out(Cluster const& cluster, std::span<Amount const> loads, std::vector<int> units,
                          Amount enough) {
  std::vector<Amount> const weights = unit_loads(cluster, loads);
  std::vector<Amount> totals = domain_loads(cluster, loads, units);
  auto const each = at(units_per_domain(cluster));
  while (*std::max_element(totals.begin(), totals.end()) > enough) {
    UnitSwap const swap = best_swap(weights, units, totals);
    if (swap.moves == 0) break;
    totals[swap.one / each] -= swap.moves;
    totals[swap.two / each] += swap.moves;
    std::swap(units[swap.one], units[swap.two]);
  }
  return units;
}

std::vector<int> exchanged(Cluster const& cluster, std::span<int const> slots, std::span<int const> from,
                           std::span<int const> to) {
  std::vector<int> becomes(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) becomes[at(from[i])] = to[i];
  int const size = cluster.experts / cluster.units();
  std::vector<int> result(slots.begin(), slots.end());
  for (int& expert : result) expert = becomes[at(expert / size)] * size + expert % size;
  return result;
}

}  // namespace switchyard::experts
