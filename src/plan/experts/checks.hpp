// What plan_experts may be asked.
#pragma once

#include "switchyard/experts.hpp"

namespace switchyard::experts {

// Throws InvalidArgument.
void check(ExpertArgs const& args);

}  // namespace switchyard::experts
