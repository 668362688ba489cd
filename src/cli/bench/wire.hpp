// What calls put on the wire between nodes, as the transport counts it.
#pragma once

#include "cli/bench/samples.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::cli {

// Of a dispatch and a combine their bytes; of both, writes, and these and their bytes by size. Nothing in a job of
// one node.
void note_wire(Part part, WireCount const& before, WireCount const& after, Samples& samples);

}  // namespace switchyard::cli
