// `switchyard plan`: what dispatch and combine cost on a cluster that is described.
#pragma once

#include "cli/plan/options.hpp"

namespace switchyard::cli {

// Prints a text, or writes JSON. Throws InvalidArgument for what cannot be, SystemError when it cannot write.
void run_plan(PlanOptions const& options);

}  // namespace switchyard::cli
