#include <algorithm>
#include <functional>
#include <numeric>

#include "plan/experts/checks.hpp"
#include "plan/experts/layer_plan.hpp"
#include "switchyard/experts.hpp"

namespace switchyard {

namespace {

template <typename T>
std::span<T const> row(std::span<T const> all, std::int64_t index, std::int64_t size) {
  return all.empty() ? all : all.subspan(static_cast<std::size_t>(index * size), static_cast<std::size_t>(size));
}

// Of a layer, [nodes, experts]: what the GPUs of a node send is added up.
std::vector<double> tokens_by_node(ExpertArgs const& args, std::int64_t layer) {
  if (args.traffic.empty()) return {};
  std::int64_t const each = static_cast<std::int64_t>(args.traffic.size()) / args.layers;
  std::span<double const> const from = row(args.traffic, layer, each);
  std::int64_t const sources = each / args.experts;
  std::vector<double> tokens(static_cast<std::size_t>(args.nodes * args.experts), 0);
  for (std::int64_t source = 0; source < sources; ++source) {
    std::int64_t const node = source / (sources / args.nodes);
    std::span<double const> const values = row(from, source, args.experts);
    double* const sums = tokens.data() + node * args.experts;
    for (std::size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
  }
  return tokens;
}

double imbalance_of(experts::Cluster const& cluster, std::vector<int> const& slots, std::span<double const> load,
                    std::span<std::int64_t const> counts) {
  // By the largest one first, so that no sum is infinite.
  double const largest = *std::max_element(load.begin(), load.end());
  if (largest == 0) return 1;
  std::vector<double> gpus(static_cast<std::size_t>(cluster.gpus), 0);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    auto const expert = static_cast<std::size_t>(slots[i]);
    gpus[static_cast<std::size_t>(cluster.gpu_of(static_cast<int>(i)))] +=
        load[expert] / largest / static_cast<double>(counts[expert]);
  }
  double const sum = std::accumulate(gpus.begin(), gpus.end(), 0.0);
  return *std::max_element(gpus.begin(), gpus.end()) * cluster.gpus / sum;
}

double crossing_of(experts::Cluster const& cluster, std::vector<int> const& slots,
                   std::vector<double> const& tokens, std::span<std::int64_t const> counts) {
  std::vector<int> on_node(tokens.size(), 0);
  std::vector<double> sums(counts.size(), 0);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    auto const node = static_cast<std::size_t>(cluster.node_of(static_cast<int>(i)));
    ++on_node[node * counts.size() + static_cast<std::size_t>(slots[i])];
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) sums[i % sums.size()] += tokens[i];
  double crossing = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    std::size_t const expert = i % sums.size();
    crossing += std::max(0.0, tokens[i] - sums[expert] * on_node[i] / static_cast<double>(counts[expert]));
  }
  return crossing;
}

std::int64_t differences(std::span<int const> old, std::vector<int> const& slots) {
  return std::inner_product(old.begin(), old.end(), slots.begin(), std::int64_t{0}, std::plus<>(),
                            std::not_equal_to<>());
}

void write_layer(ExpertPlan& plan, experts::Cluster const& cluster, std::vector<int> const& slots) {
  std::size_t const first = plan.replica_count.size();
  plan.replica_count.resize(first + static_cast<std::size_t>(cluster.experts), 0);
  for (int const expert : slots) {
    plan.physical_to_logical.push_back(expert);
    std::int64_t const count = ++plan.replica_count[first + static_cast<std::size_t>(expert)];
    plan.most_replicas = std::max(plan.most_replicas, count);
  }
}

void write_inverse(ExpertPlan& plan, ExpertArgs const& args) {
  auto const width = static_cast<std::size_t>(plan.most_replicas);
  plan.logical_to_physical.assign(plan.replica_count.size() * width, -1);
  std::vector<std::size_t> filled(plan.replica_count.size(), 0);
  for (std::size_t i = 0; i < plan.physical_to_logical.size(); ++i) {
    auto const slots = static_cast<std::size_t>(args.replicas);
    std::size_t const expert =
        i / slots * static_cast<std::size_t>(args.experts) + static_cast<std::size_t>(plan.physical_to_logical[i]);
    plan.logical_to_physical[expert * width + filled[expert]++] = static_cast<std::int64_t>(i % slots);
  }
}

}  // namespace

ExpertPlan plan_experts(ExpertArgs const& args) {
  experts::check(args);
  experts::Cluster const cluster(args);
  ExpertPlan plan;
  for (std::int64_t layer = 0; layer < args.layers; ++layer) {
    std::span<std::int64_t const> const before = row(args.old, layer, args.replicas);
    std::vector<int> const old(before.begin(), before.end());
    experts::LayerArgs const of_layer{.load = row(args.load, layer, args.experts),
                                      .old = old,
                                      .tokens = tokens_by_node(args, layer),
                                      .slack = args.slack,
                                      .move_cost = args.move_cost};
    std::vector<int> const slots = experts::plan_layer(cluster, of_layer);
    write_layer(plan, cluster, slots);
    auto const counts = row(std::span<std::int64_t const>(plan.replica_count), layer, args.experts);
    plan.imbalance.push_back(imbalance_of(cluster, slots, of_layer.load, counts));
    plan.moved.push_back(differences(old, slots));
    if (!args.traffic.empty()) plan.crossing.push_back(crossing_of(cluster, slots, of_layer.tokens, counts));
  }
  write_inverse(plan, args);
  return plan;
}

}  // namespace switchyard
