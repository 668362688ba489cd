// Makes the heaviest GPU lighter, step by step.
#pragma once

#include "plan/experts/moves.hpp"
#include "plan/experts/placement.hpp"

namespace switchyard::experts {

// Each step takes load from the heaviest GPU, and leaves all GPUs that it changes below what that one had. It swaps
// two slots of a domain, or gives the slot of an expert that has several replicas to another one. Where moves are
// counted, it is the step that gains the most for each. Ends when no GPU has more than `enough`, or no step helps.
void balance(Placement& placement, Amount enough, Moves const& moves);

// Brings experts back to the slots that they had, as long as no GPU gets more than `limit`.
void bring_back(Placement& placement, Amount limit, Moves const& moves);

}  // namespace switchyard::experts
