// How many replicas each expert gets.
#pragma once

#include <span>
#include <vector>

namespace switchyard::experts {

// One for each expert, then one after the other for whoever has the most load a replica, the first of several. That
// makes the largest load of a replica as small as it can be. For float and double. Experts without load share what
// is left evenly.
template <typename Real>
std::vector<int> count_replicas(std::span<Real const> loads, int replicas);

}  // namespace switchyard::experts
