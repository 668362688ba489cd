// The inputs of a rank: tokens, the experts they go to, and how much each of these counts.
#pragma once

#include <cstdint>
#include <vector>

#include "options.hpp"

namespace mpi_alltoall {

struct World {
  int rank = 0;
  int size = 1;
};

// First expert of a rank; experts are split into contiguous ranges, the first ranks hold one more.
int first_expert(int rank, World const& world, int experts);
std::vector<int> rank_of_experts(World const& world, int experts);

struct Inputs {
  std::vector<std::uint16_t> x;       // [tokens, hidden] bf16
  std::vector<std::int64_t> experts;  // [tokens, top_k], distinct, uniform
  std::vector<float> weights;         // [tokens, top_k]
};

// Any rank can make any rank's token for itself, to check what it received.
std::uint16_t value_at(int rank, std::int64_t token, std::int64_t column);
Inputs make_inputs(Options const& options, int rank);

}  // namespace mpi_alltoall
