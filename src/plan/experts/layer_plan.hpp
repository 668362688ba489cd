// The physical experts of one layer.
#pragma once

#include <span>
#include <vector>

#include "plan/experts/cluster.hpp"

namespace switchyard::experts {

struct LayerArgs {
  std::span<double const> load{};  // [experts]
  std::span<int const> old{};      // [replicas], or empty
  std::vector<double> tokens{};    // [nodes, experts], or empty
  double slack = 0;
  double move_cost = 0;
};

// The expert of each slot.
std::vector<int> plan_layer(Cluster const& cluster, LayerArgs const& args);

}  // namespace switchyard::experts
