// Puts replicas where their tokens come from.
#pragma once

#include <span>

#include "plan/experts/moves.hpp"
#include "plan/experts/placement.hpp"

namespace switchyard::experts {

struct LocalGoal {
  std::span<Amount const> tokens;  // [nodes, experts]
  Amount limit = 0;                // no GPU may get more load than that
  Amount move_cost = 0;            // tokens that a moved expert must keep on their nodes
};

// Whole nodes change places where experts are bound to them; otherwise whole GPUs of different nodes do, which
// changes no load, and then single slots.
void localize(Placement& placement, LocalGoal const& goal, Moves const& moves);

}  // namespace switchyard::experts
