// Problems of expert balance, and what a plan must be measured by: worked out in floating point, one replica after
// the other, apart from the library.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "support/check.hpp"
#include "support/random.hpp"
#include "switchyard/experts.hpp"

namespace switchyard::test {

// Owns what an ExpertArgs looks at.
struct ExpertProblem {
  std::vector<double> load;
  std::vector<std::int64_t> old;
  std::vector<double> traffic;
  ExpertArgs shape;

  [[nodiscard]] ExpertArgs args() const {
    ExpertArgs args = shape;
    args.load = load;
    args.old = old;
    args.traffic = traffic;
    return args;
  }
  [[nodiscard]] bool hierarchical() const { return shape.groups % shape.nodes == 0; }
};

inline double random_load(Random& random, int kind, std::int64_t expert) {
  switch (kind) {
    case 0: return 100;                                                // uniform
    case 1: return std::floor(1e4 / static_cast<double>(1 + expert));  // Zipf
    case 2: return expert == 1 ? 1000 : 0;                             // one-hot
    case 3: return 0;                                                  // nothing to do
    case 4: return static_cast<double>(random.below(4));               // many that are equal
    case 5: return std::exp(static_cast<double>(random.real()));       // skewed
    case 6: return static_cast<double>(random.below(1000)) * 1e-300;   // tiny
    default: return static_cast<double>(random.below(1000)) / 7 * 1e9;
  }
}

inline ExpertProblem random_experts(std::uint64_t seed) {
  Random random(seed);
  std::int64_t const nodes = random.between(1, 4);
  std::int64_t const gpus = nodes * random.between(1, 5);
  std::int64_t const groups = random.one_of({1, 2, 3, 4, 8});
  std::int64_t const experts = groups * random.between(1, 7);
  std::int64_t const least = (experts + gpus - 1) / gpus;
  std::int64_t const replicas = gpus * (least + random.between(0, 3));
  ExpertProblem problem;
  problem.shape = {.layers = random.between(1, 3),
                   .experts = experts,
                   .replicas = replicas,
                   .groups = groups,
                   .nodes = nodes,
                   .gpus = gpus};
  for (std::int64_t layer = 0; layer < problem.shape.layers; ++layer) {
    int const kind = random.between(0, 7);
    for (std::int64_t expert = 0; expert < experts; ++expert)
      problem.load.push_back(random_load(random, kind, expert));
  }
  return problem;
}

inline void add_traffic(ExpertProblem& problem, Random& random, std::int64_t sources) {
  problem.traffic.clear();
  for (std::int64_t i = 0; i < problem.shape.layers * sources * problem.shape.experts; ++i)
    problem.traffic.push_back(random.chance(40) ? 0 : static_cast<double>(random.below(1000)));
}

template <typename T>
std::span<T const> layer_of(std::vector<T> const& all, std::int64_t layer, std::int64_t layers) {
  std::size_t const size = all.size() / static_cast<std::size_t>(layers);
  return std::span<T const>(all).subspan(static_cast<std::size_t>(layer) * size, size);
}

inline std::vector<int> falling(std::vector<double> const& weights) {
  std::vector<int> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return weights[static_cast<std::size_t>(a)] > weights[static_cast<std::size_t>(b)];
  });
  return order;
}

// The bin of each item: the heaviest first, each into the lightest bin with room.
inline std::vector<std::size_t> packed(std::vector<double> const& weights, std::size_t bins) {
  std::vector<std::size_t> bin_of(weights.size());
  std::vector<double> sums(bins, 0);
  std::vector<std::size_t> items(bins, 0);
  for (int const item : falling(weights)) {
    std::size_t best = bins;
    for (std::size_t bin = 0; bin < bins; ++bin)
      if (items[bin] < weights.size() / bins && (best == bins || sums[bin] < sums[best])) best = bin;
    bin_of[static_cast<std::size_t>(item)] = best;
    sums[best] += weights[static_cast<std::size_t>(item)];
    ++items[best];
  }
  return bin_of;
}

// The load of each replica, when replicas go one by one to whoever has the most load a replica.
inline std::vector<double> replicated(std::vector<double> const& loads, std::size_t replicas) {
  std::vector<double> counts(loads.size(), 1);
  for (std::size_t made = loads.size(); made < replicas; ++made) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < loads.size(); ++i)
      if (loads[i] / counts[i] > loads[best] / counts[best]) best = i;
    counts[best] += 1;
  }
  std::vector<double> shares;
  for (std::size_t i = 0; i < loads.size(); ++i)
    shares.insert(shares.end(), static_cast<std::size_t>(counts[i]), loads[i] / counts[i]);
  return shares;
}

// The heaviest GPU's load by the greedy algorithm.
inline double greedy_most(ExpertProblem const& problem, std::span<double const> load) {
  auto const domains = static_cast<std::size_t>(problem.hierarchical() ? problem.shape.nodes : 1);
  auto const groups = static_cast<std::size_t>(problem.hierarchical() ? problem.shape.groups : 1);
  std::size_t const size = load.size() / groups;
  std::vector<double> group_loads(groups, 0);
  for (std::size_t i = 0; i < load.size(); ++i) group_loads[i / size] += load[i];
  std::vector<std::size_t> const domain_of = packed(group_loads, domains);
  double most = 0;
  for (std::size_t domain = 0; domain < domains; ++domain) {
    std::vector<double> local;
    for (int const group : falling(group_loads)) {
      if (domain_of[static_cast<std::size_t>(group)] != domain) continue;
      auto const from = load.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(group) * size);
      local.insert(local.end(), from, from + static_cast<std::ptrdiff_t>(size));
    }
    auto const shares = replicated(local, static_cast<std::size_t>(problem.shape.replicas) / domains);
    std::size_t const gpus = static_cast<std::size_t>(problem.shape.gpus) / domains;
    auto const gpu_of = packed(shares, gpus);
    std::vector<double> sums(gpus, 0);
    for (std::size_t i = 0; i < shares.size(); ++i) sums[gpu_of[i]] += shares[i];
    most = std::max(most, *std::max_element(sums.begin(), sums.end()));
  }
  return most;
}

inline std::vector<double> gpu_loads(ExpertProblem const& problem, std::span<double const> load,
                                     std::span<std::int64_t const> map) {
  std::vector<double> counts(load.size(), 0);
  for (std::int64_t const expert : map) counts[static_cast<std::size_t>(expert)] += 1;
  std::vector<double> sums(static_cast<std::size_t>(problem.shape.gpus), 0);
  for (std::size_t i = 0; i < map.size(); ++i) {
    auto const expert = static_cast<std::size_t>(map[i]);
    sums[i / (map.size() / sums.size())] += load[expert] / counts[expert];
  }
  return sums;
}

inline double most_of(std::vector<double> const& values) {
  return *std::max_element(values.begin(), values.end());
}

}  // namespace switchyard::test
