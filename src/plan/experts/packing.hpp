// Things of different weights into bins that hold equally many. Weights are float or double.
#pragma once

#include <span>
#include <vector>

namespace switchyard::experts {

// The indices of weights, the heaviest first, equal ones in their order.
template <typename Real>
std::vector<int> heaviest_first(std::span<Real const> weights);

// The bin of each item: one after the other, each goes into the lightest bin that has room, the first of several.
// Pass the heaviest first. `bins` divides their number.
template <typename Real>
std::vector<int> pack(std::span<Real const> items, int bins);

}  // namespace switchyard::experts
