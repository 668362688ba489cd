// Where ranks wait for one another before they are timed, as those of `switchyard bench` do
// (src/cli/bench/start_line.cpp).
#pragma once

namespace mpi_alltoall {

// Seconds by the clock of this machine.
double monotonic_seconds();

// Waits for all ranks and returns the moment at which all start. Where they share a machine, that is half a
// millisecond after the last one has come: whoever leaves a barrier first would also measure how the others leave
// it.
double start_together();

}  // namespace mpi_alltoall
