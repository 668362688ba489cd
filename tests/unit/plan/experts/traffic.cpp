// Tokens between nodes: how they are counted, and that plans avoid them.
#include <gtest/gtest.h>

#include "support/experts.hpp"

namespace switchyard::test {
namespace {

// Token by token, as far as fractions allow: replicas take equal shares, those of a token's own node first.
double crossing(ExpertProblem const& problem, std::span<double const> tokens, std::span<std::int64_t const> map) {
  double sum = 0;
  std::size_t const experts = problem.load.size() / static_cast<std::size_t>(problem.shape.layers);
  std::size_t const nodes = tokens.size() / experts;
  for (std::size_t expert = 0; expert < experts; ++expert) {
    double all = 0;
    for (std::size_t node = 0; node < nodes; ++node) all += tokens[node * experts + expert];
    auto const replicas = std::count(map.begin(), map.end(), static_cast<std::int64_t>(expert));
    for (std::size_t node = 0; node < nodes; ++node) {
      double left = tokens[node * experts + expert];
      for (std::size_t slot = 0; slot < map.size(); ++slot)
        if (map[slot] == static_cast<std::int64_t>(expert) && slot / (map.size() / nodes) == node)
          left -= std::min(left, all / static_cast<double>(replicas));
      sum += left;
    }
  }
  return sum;
}

TEST(ExpertTraffic, IsCountedAndKeepsTheLoadBelowTheGreedyOne) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem problem = random_experts(seed);
    Random random(seed);
    add_traffic(problem, random, problem.shape.nodes);
    ExpertPlan const plan = plan_experts(problem.args());
    ASSERT_EQ(plan.crossing.size(), static_cast<std::size_t>(problem.shape.layers));
    for (std::int64_t layer = 0; layer < problem.shape.layers; ++layer) {
      auto const load = layer_of(problem.load, layer, problem.shape.layers);
      auto const map = layer_of(plan.physical_to_logical, layer, problem.shape.layers);
      EXPECT_LE(most_of(gpu_loads(problem, load, map)), greedy_most(problem, load) * (1 + 1e-9));
      EXPECT_NEAR(plan.crossing[static_cast<std::size_t>(layer)],
                  crossing(problem, layer_of(problem.traffic, layer, problem.shape.layers), map), 1e-6);
    }
  }
}

// With the map of a plan that knew no traffic as the one before, and no limit, nothing moves: so that is what it
// costs.
double crossing_without_care(ExpertProblem problem) {
  std::vector<double> const traffic = std::exchange(problem.traffic, {});
  problem.old = plan_experts(problem.args()).physical_to_logical;
  problem.traffic = traffic;
  problem.shape.slack = std::numeric_limits<double>::infinity();
  ExpertPlan const plan = plan_experts(problem.args());
  check(plan.physical_to_logical == problem.old, "nothing moves");
  return std::accumulate(plan.crossing.begin(), plan.crossing.end(), 0.0);
}

TEST(ExpertTraffic, FewerTokensCrossThanWithoutIt) {
  double with = 0;
  double without = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem problem = random_experts(seed);
    Random random(seed);
    add_traffic(problem, random, problem.shape.nodes);
    ExpertPlan const plan = plan_experts(problem.args());
    with += std::accumulate(plan.crossing.begin(), plan.crossing.end(), 0.0);
    without += crossing_without_care(problem);
  }
  EXPECT_LT(with, 0.8 * without);
}

TEST(ExpertTraffic, ExpertsGoWhereAllOfTheirTokensComeFrom) {
  for (std::int64_t const groups : {1, 4}) {
    ExpertProblem problem;
    problem.shape = {.layers = 1, .experts = 8, .replicas = 8, .groups = groups, .nodes = 4, .gpus = 4};
    problem.load.assign(8, 10);
    problem.traffic.assign(4 * 8, 0);
    for (std::size_t expert = 0; expert < 8; ++expert) problem.traffic[(3 - expert / 2) * 8 + expert] = 10;
    ExpertPlan const plan = plan_experts(problem.args());
    EXPECT_EQ(plan.crossing.front(), 0) << groups << " groups";
    EXPECT_EQ(plan.imbalance.front(), 1) << groups << " groups";
  }
}

TEST(ExpertTraffic, OfGpusIsAddedUpByNode) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem by_gpu = random_experts(seed);
    Random random(seed);
    add_traffic(by_gpu, random, by_gpu.shape.gpus);
    ExpertProblem by_node = by_gpu;
    auto const [layers, gpus, experts] = std::tuple(by_gpu.shape.layers, by_gpu.shape.gpus, by_gpu.shape.experts);
    by_node.traffic.assign(static_cast<std::size_t>(layers * by_gpu.shape.nodes * experts), 0);
    for (std::int64_t i = 0; i < layers * gpus * experts; ++i) {
      std::int64_t const node = i / experts % gpus / (gpus / by_gpu.shape.nodes);
      std::int64_t const layer = i / experts / gpus;
      by_node.traffic[static_cast<std::size_t>((layer * by_gpu.shape.nodes + node) * experts + i % experts)] +=
          by_gpu.traffic[static_cast<std::size_t>(i)];
    }
    EXPECT_EQ(plan_experts(by_gpu.args()).physical_to_logical, plan_experts(by_node.args()).physical_to_logical);
  }
}

TEST(ExpertTraffic, MovesExpertsOnlyForWhatTheMoveCosts) {
  ExpertProblem problem;
  problem.shape = {.layers = 1, .experts = 4, .replicas = 4, .groups = 1, .nodes = 2, .gpus = 2};
  problem.load.assign(4, 1);
  problem.old = {0, 1, 2, 3};
  problem.traffic = {0, 9, 9, 0, 9, 0, 0, 9};  // 0 has its tokens on node 1, and 2 on node 0: 9 for each move
  EXPECT_EQ(plan_experts(problem.args()).moved.front(), 0);
  EXPECT_EQ(plan_experts(problem.args()).crossing.front(), 18);
  problem.shape.move_cost = 9;
  EXPECT_EQ(plan_experts(problem.args()).moved.front(), 0);
  problem.shape.move_cost = 8;
  EXPECT_EQ(plan_experts(problem.args()).moved.front(), 2);
  EXPECT_EQ(plan_experts(problem.args()).crossing.front(), 0);
}

}  // namespace
}  // namespace switchyard::test
