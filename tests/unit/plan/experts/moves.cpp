// With a map before: what stays, what moves, and how even the result must be all the same.
#include <gtest/gtest.h>

#include "support/experts.hpp"

namespace switchyard::test {
namespace {

std::int64_t differences(std::span<std::int64_t const> one, std::span<std::int64_t const> two) {
  std::int64_t count = 0;
  for (std::size_t i = 0; i < one.size(); ++i) count += one[i] != two[i] ? 1 : 0;
  return count;
}

// Any map that has each expert: `seed` shuffles one.
std::vector<std::int64_t> any_map(ExpertProblem const& problem, Random& random) {
  std::vector<std::int64_t> maps;
  for (std::int64_t layer = 0; layer < problem.shape.layers; ++layer) {
    std::vector<std::int64_t> map;
    for (std::int64_t i = 0; i < problem.shape.replicas; ++i) map.push_back(i % problem.shape.experts);
    for (std::size_t i = map.size(); i-- > 1;)
      std::swap(map[i], map[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i) + 1))]);
    maps.insert(maps.end(), map.begin(), map.end());
  }
  return maps;
}

// Loads that differ a little from those of the map before.
void drift(ExpertProblem& problem, Random& random) {
  for (double& load : problem.load) load *= 1 + static_cast<double>(random.real()) / 20;
}

TEST(ExpertMoves, NothingMovesWhereLoadsStayAsTheyWere) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem problem = random_experts(seed);
    problem.old = plan_experts(problem.args()).physical_to_logical;
    ExpertPlan const again = plan_experts(problem.args());
    EXPECT_EQ(again.physical_to_logical, problem.old);
    for (std::int64_t const moved : again.moved) EXPECT_EQ(moved, 0);
  }
}

TEST(ExpertMoves, ResultIsCountedAndAsEvenAsTheGreedyOneFromAnyMap) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem problem = random_experts(seed);
    Random random(seed + 1000);
    problem.old = random.chance(50) ? any_map(problem, random) : plan_experts(problem.args()).physical_to_logical;
    drift(problem, random);
    ExpertPlan const plan = plan_experts(problem.args());
    for (std::int64_t layer = 0; layer < problem.shape.layers; ++layer) {
      auto const load = layer_of(problem.load, layer, problem.shape.layers);
      auto const map = layer_of(plan.physical_to_logical, layer, problem.shape.layers);
      EXPECT_LE(most_of(gpu_loads(problem, load, map)), greedy_most(problem, load) * (1 + 1e-9));
      EXPECT_EQ(plan.moved[static_cast<std::size_t>(layer)],
                differences(map, layer_of(problem.old, layer, problem.shape.layers)));
    }
  }
}

TEST(ExpertMoves, LargeMapsKeepMostAfterADrift) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    Random random(seed);
    ExpertProblem problem;
    problem.shape = {.layers = 2, .experts = 64, .replicas = 96, .groups = 1, .nodes = 2, .gpus = 16};
    for (int i = 0; i < 128; ++i) problem.load.push_back(random_load(random, 5, i));
    problem.old = plan_experts(problem.args()).physical_to_logical;
    drift(problem, random);
    ExpertPlan const kept = plan_experts(problem.args());
    ExpertProblem anew = problem;
    anew.old.clear();
    ExpertPlan const fresh = plan_experts(anew.args());
    EXPECT_LT(2 * differences(kept.physical_to_logical, problem.old),
              differences(fresh.physical_to_logical, problem.old));
    EXPECT_LT(differences(kept.physical_to_logical, problem.old), 96);
  }
}

TEST(ExpertMoves, SlackSavesMovesAndBoundsTheLoad) {
  std::int64_t strict = 0;
  std::int64_t slack = 0;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem problem = random_experts(seed);
    Random random(seed);
    problem.old = plan_experts(problem.args()).physical_to_logical;
    drift(problem, random);
    for (std::int64_t const moved : plan_experts(problem.args()).moved) strict += moved;
    problem.shape.slack = 0.1;
    ExpertPlan const plan = plan_experts(problem.args());
    for (std::int64_t const moved : plan.moved) slack += moved;
    for (std::int64_t layer = 0; layer < problem.shape.layers; ++layer) {
      auto const load = layer_of(problem.load, layer, problem.shape.layers);
      auto const map = layer_of(plan.physical_to_logical, layer, problem.shape.layers);
      EXPECT_LE(most_of(gpu_loads(problem, load, map)), greedy_most(problem, load) * 1.1 * (1 + 1e-9));
    }
  }
  EXPECT_LT(2 * slack, strict);
}

TEST(ExpertMoves, WithoutALimitNothingMoves) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    ExpertProblem problem = random_experts(seed);
    Random random(seed);
    problem.old = plan_experts(problem.args()).physical_to_logical;
    for (double& load : problem.load) load = static_cast<double>(random.below(1000));
    problem.shape.slack = std::numeric_limits<double>::infinity();
    EXPECT_EQ(plan_experts(problem.args()).physical_to_logical, problem.old);
  }
}

// Groups lie on nodes again even if they did not before.
TEST(ExpertMoves, AMapWithoutGroupsOnNodesBecomesOneWithThem) {
  ExpertProblem problem;
  problem.shape = {.layers = 1, .experts = 8, .replicas = 8, .groups = 4, .nodes = 2, .gpus = 4};
  problem.shape.slack = std::numeric_limits<double>::infinity();
  problem.load = {1, 1, 1, 1, 1, 1, 1, 1};
  problem.old = {0, 2, 4, 6, 1, 3, 5, 7};
  auto const map = plan_experts(problem.args()).physical_to_logical;
  for (std::size_t group = 0; group < 4; ++group) {
    auto const place = [&](std::size_t expert) {
      return std::find(map.begin(), map.end(), static_cast<std::int64_t>(expert)) - map.begin();
    };
    EXPECT_EQ(place(2 * group) / 4, place(2 * group + 1) / 4) << "group " << group;
  }
}

}  // namespace
}  // namespace switchyard::test
