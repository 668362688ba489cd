// Measures the parts of a decoding step by all clocks.
#pragma once

#include "cli/latency_calls.hpp"
#include "cli/start_line.hpp"

namespace switchyard::cli {

// Collective.
LatencySamples measure_latency(LatencyCase const& of, LatencyCalls& calls, StartLine& start_line);

}  // namespace switchyard::cli
