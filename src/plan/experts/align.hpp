// Which GPU plays which part: a placement is as good with its GPUs in any other order.
#pragma once

#include <vector>

#include "plan/experts/moves.hpp"
#include "plan/experts/placement.hpp"

namespace switchyard::experts {

// The slots of a placement in an order in which few differ from the map before: domains change places as a whole,
// then GPUs inside of them, then slots inside of those. Each goes where it has the most in common, the best first.
std::vector<int> aligned(Placement const& placement, Moves const& moves);

}  // namespace switchyard::experts
