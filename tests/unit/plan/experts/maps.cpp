// What every plan of experts must be: complete, consistent, at least as even as the greedy algorithm's, and the
// same each time.
#include <gtest/gtest.h>

#include <set>

#include "support/experts.hpp"

namespace switchyard::test {
namespace {

void expect_complete(ExpertProblem const& problem, ExpertPlan const& plan) {
  auto const [layers, experts, replicas] =
      std::tuple(problem.shape.layers, problem.shape.experts, problem.shape.replicas);
  ASSERT_EQ(plan.physical_to_logical.size(), static_cast<std::size_t>(layers * replicas));
  ASSERT_EQ(plan.replica_count.size(), static_cast<std::size_t>(layers * experts));
  ASSERT_EQ(plan.logical_to_physical.size(), static_cast<std::size_t>(layers * experts * plan.most_replicas));
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    auto const map = layer_of(plan.physical_to_logical, layer, layers);
    auto const inverse = layer_of(plan.logical_to_physical, layer, layers);
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      std::vector<std::int64_t> slots;
      for (std::size_t i = 0; i < map.size(); ++i)
        if (map[i] == expert) slots.push_back(static_cast<std::int64_t>(i));
      EXPECT_GE(slots.size(), 1U) << "expert " << expert;
      EXPECT_EQ(layer_of(plan.replica_count, layer, layers)[static_cast<std::size_t>(expert)],
                static_cast<std::int64_t>(slots.size()));
      slots.resize(static_cast<std::size_t>(plan.most_replicas), -1);
      auto const seen = inverse.subspan(static_cast<std::size_t>(expert * plan.most_replicas), slots.size());
      EXPECT_TRUE(std::equal(slots.begin(), slots.end(), seen.begin())) << "expert " << expert;
    }
  }
}

void expect_groups_on_nodes(ExpertProblem const& problem, std::span<std::int64_t const> map) {
  std::vector<std::set<std::size_t>> nodes(static_cast<std::size_t>(problem.shape.groups));
  for (std::size_t i = 0; i < map.size(); ++i)
    nodes[static_cast<std::size_t>(map[i] / (problem.shape.experts / problem.shape.groups))].insert(
        i / (map.size() / static_cast<std::size_t>(problem.shape.nodes)));
  for (auto const& each : nodes) EXPECT_EQ(each.size(), 1U);
}

// No GPU is heavier than the greedy algorithm's, and no plan is lighter than the mean or the lightest possible
// replica.
void expect_even(ExpertProblem const& problem, ExpertPlan const& plan, std::int64_t layer) {
  auto const load = layer_of(problem.load, layer, problem.shape.layers);
  auto const sums = gpu_loads(problem, load, layer_of(plan.physical_to_logical, layer, problem.shape.layers));
  double const mean = std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(sums.size());
  double const greedy = greedy_most(problem, load);
  auto const shares = replicated({load.begin(), load.end()}, static_cast<std::size_t>(problem.shape.replicas));
  EXPECT_LE(most_of(sums), greedy * (1 + 1e-9));
  EXPECT_GE(most_of(sums) * (1 + 1e-9), std::max(mean, most_of(shares)));
  double const imbalance = mean == 0 ? 1 : most_of(sums) / mean;
  EXPECT_NEAR(plan.imbalance[static_cast<std::size_t>(layer)], imbalance, 1e-9 * imbalance);
}

TEST(ExpertMaps, AreCompleteAndAtLeastAsEvenAsTheGreedyOnes) {
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem const problem = random_experts(seed);
    ExpertPlan const plan = plan_experts(problem.args());
    expect_complete(problem, plan);
    for (std::int64_t layer = 0; layer < problem.shape.layers; ++layer) {
      expect_even(problem, plan, layer);
      if (problem.hierarchical())
        expect_groups_on_nodes(problem, layer_of(plan.physical_to_logical, layer, problem.shape.layers));
    }
    EXPECT_EQ(plan.moved, std::vector<std::int64_t>(static_cast<std::size_t>(problem.shape.layers), 0));
    EXPECT_TRUE(plan.crossing.empty());
  }
}

TEST(ExpertMaps, AreTheSameEachTime) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem problem = random_experts(seed);
    Random random(seed);
    add_traffic(problem, random, problem.shape.gpus);
    EXPECT_EQ(plan_experts(problem.args()).physical_to_logical, plan_experts(problem.args()).physical_to_logical);
  }
}

TEST(ExpertMaps, DoNotDependOnTheUnitOfLoads) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem problem = random_experts(seed);
    ExpertPlan const plan = plan_experts(problem.args());
    for (double& load : problem.load) load *= 0x1p40;
    EXPECT_EQ(plan_experts(problem.args()).physical_to_logical, plan.physical_to_logical);
  }
}

TEST(ExpertMaps, OfEachLayerDependOnThatLayerAlone) {
  ExpertProblem problem = random_experts(7);
  problem.shape.layers = 2;
  problem.load.resize(static_cast<std::size_t>(2 * problem.shape.experts));
  auto const experts = static_cast<std::ptrdiff_t>(problem.shape.experts);
  for (std::ptrdiff_t i = 0; i < experts; ++i)
    problem.load[static_cast<std::size_t>(i + experts)] = 1.0 + 3.0 * static_cast<double>(i % 3);
  ExpertProblem alone = problem;
  alone.shape.layers = 1;
  alone.load.assign(problem.load.begin() + experts, problem.load.end());
  auto const both = plan_experts(problem.args()).physical_to_logical;
  auto const second = layer_of(both, 1, 2);
  EXPECT_EQ(plan_experts(alone.args()).physical_to_logical,
            std::vector<std::int64_t>(second.begin(), second.end()));
}

// The greedy algorithm gives 3 and 3, then 2 and 2 to the same two GPUs, and the last 2 to one of them: 7 and 5
// where 6 and 6 are possible.
TEST(ExpertMaps, FindWhatTheGreedyAlgorithmMisses) {
  ExpertProblem problem;
  problem.shape = {.layers = 1, .experts = 6, .replicas = 6, .gpus = 2};
  problem.load = {3, 3, 2, 2, 2, 0};
  ASSERT_EQ(greedy_most(problem, problem.load), 7);
  EXPECT_EQ(plan_experts(problem.args()).imbalance.front(), 1);
}

TEST(ExpertMaps, ShareSparesEvenlyWhereNothingIsToDo) {
  ExpertProblem problem;
  problem.shape = {.layers = 1, .experts = 4, .replicas = 8, .gpus = 4};
  problem.load = {0, 0, 0, 0};
  EXPECT_EQ(plan_experts(problem.args()).replica_count, (std::vector<std::int64_t>{2, 2, 2, 2}));
}

TEST(ExpertMaps, OfNoLayersAreEmpty) {
  ExpertPlan const plan = plan_experts({.layers = 0, .experts = 4, .replicas = 8, .gpus = 4});
  EXPECT_TRUE(plan.physical_to_logical.empty());
  EXPECT_TRUE(plan.logical_to_physical.empty());
  EXPECT_TRUE(plan.imbalance.empty());
}

}  // namespace
}  // namespace switchyard::test
