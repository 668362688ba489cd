// Arguments that plan_experts refuses, and the words that it does so with.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "support/experts.hpp"

namespace switchyard::test {
namespace {

ExpertProblem good_experts() {
  ExpertProblem problem;
  problem.shape = {.layers = 2, .experts = 4, .replicas = 8, .groups = 2, .nodes = 2, .gpus = 4};
  problem.load = {1, 2, 3, 4, 5, 6, 7, 8};
  problem.old = {0, 1, 2, 3, 0, 1, 2, 3, 3, 2, 1, 0, 3, 2, 1, 0};
  problem.traffic.assign(16, 1);
  return problem;
}

void expect_plan_refused(std::string const& words, std::function<void(ExpertProblem&)> const& spoil) {
  ExpertProblem problem = good_experts();
  spoil(problem);
  try {
    static_cast<void>(plan_experts(problem.args()));
    ADD_FAILURE() << "not refused: " << words;
  } catch (InvalidArgument const& error) {
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(ExpertRefusals, TheGoodOnesAreTaken) {
  EXPECT_EQ(plan_experts(good_experts().args()).moved.size(), 2U);
}

TEST(ExpertRefusals, NumbersNameTheirPosition) {
  double const nan = std::numeric_limits<double>::quiet_NaN();
  double const infinity = std::numeric_limits<double>::infinity();
  expect_plan_refused("load: expected finite numbers >= 0", [&](auto& p) { p.load[3] = nan; });
  expect_plan_refused("seen nan at [0, 3]; ", [&](auto& p) { p.load[3] = nan; });
  expect_plan_refused("seen -1 at [1, 0]; ", [&](auto& p) { p.load[4] = -1; });
  expect_plan_refused("load: expected finite", [&](auto& p) { p.load[0] = infinity; });
  expect_plan_refused("load: expected finite", [&](auto& p) { p.load[0] = 1e300; });
  expect_plan_refused("traffic: expected finite numbers >= 0", [&](auto& p) { p.traffic[13] = -2; });
  expect_plan_refused("seen -2 at [1, 1, 1]; ", [&](auto& p) { p.traffic[13] = -2; });
  expect_plan_refused("old: expected experts from 0 to 3, seen 4 at [1, 2]", [&](auto& p) { p.old[10] = 4; });
  expect_plan_refused("old: expected experts from 0 to 3, seen -1 at [0, 0]", [&](auto& p) { p.old[0] = -1; });
  expect_plan_refused("old: expected each expert in each layer, seen none of expert 3 in layer 0", [&](auto& p) {
    p.old[3] = 0;
    p.old[7] = 0;
  });
  expect_plan_refused("slack: expected a number >= 0, seen -0.5", [&](auto& p) { p.shape.slack = -0.5; });
  expect_plan_refused("slack: expected a number >= 0, seen nan", [&](auto& p) { p.shape.slack = nan; });
  expect_plan_refused("move_cost: expected a number >= 0, seen -1", [&](auto& p) { p.shape.move_cost = -1; });
}

TEST(ExpertRefusals, ShapesNameWhatDoesNotFit) {
  expect_plan_refused("replicas: expected one for each of 4 experts", [](auto& p) { p.shape.replicas = 3; });
  expect_plan_refused("replicas: expected a multiple of gpus, which is 4, seen 9",
                      [](auto& p) { p.shape.replicas = 9; });
  expect_plan_refused("gpus: expected a multiple of nodes, which is 3, seen 4", [](auto& p) { p.shape.nodes = 3; });
  expect_plan_refused("experts: expected a multiple of groups, which is 3, seen 4",
                      [](auto& p) { p.shape.groups = 3; });
  expect_plan_refused("nodes: expected 1 to", [](auto& p) { p.shape.nodes = 0; });
  expect_plan_refused("gpus: expected 1 to", [](auto& p) { p.shape.gpus = -4; });
  expect_plan_refused("groups: expected 1 to", [](auto& p) { p.shape.groups = 0; });
  expect_plan_refused("experts: expected 1 to", [](auto& p) { p.shape.experts = 0; });
  expect_plan_refused("layers: expected 0 to", [](auto& p) { p.shape.layers = -1; });
  expect_plan_refused("replicas: expected 1 to", [](auto& p) { p.shape.replicas = std::int64_t{1} << 62; });
  expect_plan_refused("load: expected [layers, experts], 8 numbers, seen 7", [](auto& p) { p.load.pop_back(); });
  expect_plan_refused("old: expected [layers, replicas], 16 numbers, seen 15", [](auto& p) { p.old.pop_back(); });
  expect_plan_refused("traffic: expected [layers, nodes or gpus, experts], 16 or 32 numbers, seen 24",
                      [](auto& p) { p.traffic.resize(24); });
}

}  // namespace
}  // namespace switchyard::test
