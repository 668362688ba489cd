#include "routing.hpp"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

namespace mpi_alltoall {

int first_expert(int rank, World const& world, int experts) {
  return rank * (experts / world.size) + std::min(rank, experts % world.size);
}

std::vector<int> rank_of_experts(World const& world, int experts) {
  std::vector<int> owner(static_cast<std::size_t>(experts));
  for (int rank = 0; rank < world.size; ++rank) {
    auto const begin = owner.begin() + first_expert(rank, world, experts);
    auto const end = owner.begin() + first_expert(rank + 1, world, experts);
    std::fill(begin, end, rank);
  }
  return owner;
}

std::uint16_t value_at(int rank, std::int64_t token, std::int64_t column) {
  auto const mixed = static_cast<std::uint32_t>(rank * 7919 + token * 104729 + column * 31) * 2654435761U;
  // Sign and mantissa vary, the exponent stays: 1 <= |value| < 2.
  return static_cast<std::uint16_t>(0x3f80U | (mixed >> 25U) | ((mixed & 0x1000U) << 3U));
}

namespace {

std::vector<std::int64_t> choose_experts(Options const& options, std::mt19937_64& random) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(options.experts));
  std::iota(all.begin(), all.end(), 0);
  std::vector<std::int64_t> chosen;
  chosen.reserve(static_cast<std::size_t>(options.tokens * options.top_k));
  for (std::int64_t token = 0; token < options.tokens; ++token) {
    for (std::size_t k = 0; k < static_cast<std::size_t>(options.top_k); ++k) {
      std::swap(all[k], all[std::uniform_int_distribution<std::size_t>(k, all.size() - 1)(random)]);
      chosen.push_back(all[k]);
    }
  }
  return chosen;
}

}  // namespace

Inputs make_inputs(Options const& options, int rank) {
  std::mt19937_64 random(options.seed * 1000003U + static_cast<std::uint64_t>(rank));
  Inputs inputs;
  inputs.x.resize(static_cast<std::size_t>(options.tokens * options.hidden));
  for (std::int64_t i = 0; i < options.tokens * options.hidden; ++i) {
    inputs.x[static_cast<std::size_t>(i)] = value_at(rank, i / options.hidden, i % options.hidden);
  }
  inputs.experts = choose_experts(options, random);
  inputs.weights.resize(inputs.experts.size());
  for (float& weight : inputs.weights) weight = std::uniform_real_distribution<float>(0.0F, 1.0F)(random);
  return inputs;
}

}  // namespace mpi_alltoall
