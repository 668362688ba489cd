// `switchyard bench` and `switchyard trace`.
#pragma once

#include "cli/bench/options.hpp"

namespace switchyard::cli {

// Returns the exit status of the command. Throws InvalidArgument and Unsupported for options that do not work,
// other errors for what fails later.
int run_bench(BenchOptions const& options);

}  // namespace switchyard::cli
