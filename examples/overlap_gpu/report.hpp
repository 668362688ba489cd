#pragma once

#include <string>
#include <vector>

#include "rank.hpp"
#include "timing.hpp"

namespace example {

// A line a rank.
void print_table(std::vector<Measured> const& ranks, Setup const& setup);
// The runs together, for chrome://tracing or ui.perfetto.dev: a process a rank, a thread a stream.
void write_trace(std::vector<Measured> const& ranks, std::string const& path);

}  // namespace example
