// Measures the parts of a decoding step by all clocks.
#pragma once

#include "cli/bench/low_latency.hpp"
#include "cli/bench/start_line.hpp"

namespace switchyard::cli {

// Collective.
LatencySamples measure_latency(LatencyCase const& of, LatencyCalls& calls, StartLine& start_line);

}  // namespace switchyard::cli
