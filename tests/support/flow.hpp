// One rank's walk through a case: dispatch and combine, and the checks of both.
#pragma once

#include <vector>

#include "support/inputs.hpp"
#include "support/outputs.hpp"
#include "support/ranks.hpp"

namespace switchyard::test {

BufferOptions options_for(Problem const& p, int results = 2);

// Dispatches, checks, combines from a tensor of the heap, checks.
void round_trip(Problem const& p, Buffer& buffer, CombineExtras const& extras = {});

// A whole case: a job, a buffer, and a round trip with everything that the case can carry.
bool run_case(Case const& c);

// Every case in turn; stops at the first that fails.
void run_cases(std::vector<Case> const& cases);

}  // namespace switchyard::test
