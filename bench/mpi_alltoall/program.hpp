// The frame of a program of ranks.
#pragma once

#include <mpi.h>

#include <cstdio>
#include <exception>

namespace mpi_alltoall {

// One rank's failure ends the job.
inline int run_program(char const* name, int argc, char** argv, void (*run)(int, char**)) {
  MPI_Init(&argc, &argv);
  try {
    run(argc, argv);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return 0;
}

}  // namespace mpi_alltoall
