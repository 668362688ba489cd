// Chrome / Perfetto trace files: a process a rank, a thread a worker.
#pragma once

#include <string>

#include "switchyard/communicator.hpp"

namespace switchyard::cli {

// Gathers what each rank recorded; rank 0 writes the file. Collective.
void write_trace(Communicator& communicator, std::string const& path);

}  // namespace switchyard::cli
