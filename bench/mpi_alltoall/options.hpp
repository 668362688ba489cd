// What the program is asked to do, on the command line.
#pragma once

#include <cstdint>

namespace mpi_alltoall {

struct Options {
  std::int64_t tokens = 4096;  // a rank
  std::int64_t hidden = 7168;
  int top_k = 8;
  int experts = 256;
  std::uint64_t seed = 1;
  int warmup = 2;
  int iterations = 10;
};

// Throws std::invalid_argument with a text for the user.
Options parse(int argc, char** argv);

}  // namespace mpi_alltoall
