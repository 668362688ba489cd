// What the ranks send and multiply: any rank, and the GPU, can compute it again, and so check results.
#pragma once

#include <bit>
#include <cstdint>

namespace example {

inline constexpr int hidden = 7168;
inline constexpr int top_k = 8;
inline constexpr int experts_per_rank = 32;

struct Job {
  int rank = 0;
  int ranks = 1;
  int tokens = 0;  // of each rank
};

constexpr std::uint32_t mixed(std::uint32_t bits) {
  bits = (bits ^ bits >> 16) * 0x7feb352dU;
  bits = (bits ^ bits >> 15) * 0x846ca68bU;
  return bits ^ bits >> 16;
}

// Each run has tokens of its own, so that none can pass with the results of the run before.
constexpr std::uint32_t seed_of_x(int rank, int run) {
  return static_cast<std::uint32_t>(run * 64 + rank);
}
inline constexpr std::uint32_t seed_of_w = 0xffffffffU;

// Where the values of a row begin.
constexpr std::uint32_t row_key(std::uint32_t seed, int row) {
  return mixed(seed ^ mixed(static_cast<std::uint32_t>(row)));
}
// -8..7: bf16 holds them exactly, and f32 the sums of their products. So results do not depend on the order of a
// sum, and are compared bit by bit.
constexpr int value_at(std::uint32_t key, int column) {
  return static_cast<int>(mixed(key + static_cast<std::uint32_t>(column)) >> 28) - 8;
}
constexpr std::uint16_t bf16_of(int small) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(small)) >> 16);
}

// What a gate would decide. The experts of a token differ, because an odd step comes back late.
constexpr int expert_of(Job const& job, int rank, int token, int slot) {
  std::uint32_t const first = mixed(static_cast<std::uint32_t>(token * 64 + rank));
  std::uint64_t const step = mixed(first) | 1U;
  auto const experts = static_cast<std::uint64_t>(experts_per_rank) * static_cast<std::uint64_t>(job.ranks);
  return static_cast<int>((first + static_cast<std::uint64_t>(slot) * step) % experts);
}
constexpr bool goes_to(Job const& job, int rank, int token, int destination) {
  for (int slot = 0; slot < top_k; ++slot)
    if (expert_of(job, rank, token, slot) / experts_per_rank == destination) return true;
  return false;
}

}  // namespace example
