#include "plan/experts/greedy.hpp"

#include <numeric>

#include "plan/experts/packing.hpp"
#include "plan/experts/replicas.hpp"
#include "plan/experts/units.hpp"

namespace switchyard::experts {

namespace {

// The experts of a domain, one entry for each replica, the heaviest first.
template <typename Real>
struct Items {
  std::vector<int> experts;
  std::vector<Real> shares;
};

template <typename Real>
Items<Real> items_of_domain(std::span<int const> experts, std::span<Real const> loads, int slots) {
  std::vector<Real> local;
  local.reserve(experts.size());
  for (int const expert : experts) local.push_back(loads[static_cast<std::size_t>(expert)]);
  std::vector<int> const counts = count_replicas<Real>(local, slots);
  for (std::size_t i = 0; i < local.size(); ++i) local[i] /= static_cast<Real>(counts[i]);
  Items<Real> items;
  items.experts.reserve(static_cast<std::size_t>(slots));
  items.shares.reserve(static_cast<std::size_t>(slots));
  for (int const each : heaviest_first<Real>(local)) {
    auto const i = static_cast<std::size_t>(each);
    items.experts.insert(items.experts.end(), static_cast<std::size_t>(counts[i]), experts[i]);
    items.shares.insert(items.shares.end(), static_cast<std::size_t>(counts[i]), local[i]);
  }
  return items;
}

// Expert number `i` of a domain, whose units are those that are listed for it.
int expert_of(Cluster const& cluster, std::span<int const> units, int domain, int i) {
  int const size = cluster.experts / cluster.units();
  int const position = domain * (cluster.units() / cluster.domains()) + i / size;
  return units[static_cast<std::size_t>(position)] * size + i % size;
}

}  // namespace

template <typename Real>
std::vector<int> pack_units(Cluster const& cluster, std::span<Real const> loads) {
  std::vector<int> units(static_cast<std::size_t>(cluster.units()));
  std::iota(units.begin(), units.end(), 0);
  if (cluster.units() == cluster.domains()) return units;
  std::vector<Real> const weights = unit_loads(cluster, loads);
  std::vector<int> const order = heaviest_first<Real>(weights);
  std::vector<Real> sorted;
  sorted.reserve(order.size());
  for (int const unit : order) sorted.push_back(weights[static_cast<std::size_t>(unit)]);
  std::vector<int> const domains = pack<Real>(sorted, cluster.domains());
  auto const each = units.size() / static_cast<std::size_t>(cluster.domains());
  std::vector<std::size_t> filled(static_cast<std::size_t>(cluster.domains()), 0);
  for (std::size_t i = 0; i < order.size(); ++i) {
    auto const domain = static_cast<std::size_t>(domains[i]);
    units[domain * each + filled[domain]++] = order[i];
  }
  return units;
}

template <typename Real>
std::vector<int> place_greedily(Cluster const& cluster, std::span<Real const> loads, std::span<int const> units) {
  std::vector<int> slots(static_cast<std::size_t>(cluster.replicas));
  std::vector<int> experts(static_cast<std::size_t>(cluster.experts / cluster.domains()));
  for (int domain = 0; domain < cluster.domains(); ++domain) {
    for (std::size_t i = 0; i < experts.size(); ++i)
      experts[i] = expert_of(cluster, units, domain, static_cast<int>(i));
    Items<Real> const items = items_of_domain<Real>(experts, loads, cluster.slots_per_domain());
    std::vector<int> const gpus = pack<Real>(items.shares, cluster.gpus_per_domain());
    std::vector<int> next(static_cast<std::size_t>(cluster.gpus_per_domain()));
    for (std::size_t gpu = 0; gpu < next.size(); ++gpu)
      next[gpu] = domain * cluster.slots_per_domain() + static_cast<int>(gpu) * cluster.slots_per_gpu();
    for (std::size_t i = 0; i < gpus.size(); ++i)
      slots[static_cast<std::size_t>(next[static_cast<std::size_t>(gpus[i])]++)] = items.experts[i];
  }
  return slots;
}

template std::vector<int> pack_units(Cluster const&, std::span<float const>);
template std::vector<int> pack_units(Cluster const&, std::span<double const>);
template std::vector<int> place_greedily(Cluster const&, std::span<float const>, std::span<int const>);
template std::vector<int> place_greedily(Cluster const&, std::span<double const>, std::span<int const>);

}  // namespace switchyard::experts
