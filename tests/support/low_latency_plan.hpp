// An order of halves that the interface allows, the same on all ranks, from a seed.
#pragma once

#include <vector>

#include "support/random.hpp"

namespace switchyard::test {

enum class Half : std::uint8_t { send, receive, send_outputs, receive_outputs };

struct PlannedHalf {
  Half half;
  int trip;
};

// One dispatch and one combine under way at most; a dispatch only when the trip that had its frame before is done.
std::vector<PlannedHalf> plan_halves(int trips, int frames, Random& random);

}  // namespace switchyard::test
