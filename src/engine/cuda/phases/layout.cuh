// Layout: where each token goes, and its number within each stream; every block of the grid for its own tokens.
#pragma once

#include "engine/cuda/phases/layout_expanded.cuh"

namespace switchyard::cuda {

// With more experts than this, counts are kept in global memory.
inline constexpr int shared_expert_counts = 4096;

__device__ inline void layout_phase(NotifyArgs const& args) {
  __shared__ int few_experts[shared_expert_counts];
  int const experts = args.experts.num_experts();
  int const world = args.peers.world;
  int* const counts = block_counts_of(args.peers) + static_cast<std::size_t>(blockIdx.x) * (world + experts);
  int* const expert_counts = experts <= shared_expert_counts ? few_experts : counts + world;
  for (int expert = static_cast<int>(threadIdx.x); expert < experts; expert += layout_threads)
    expert_counts[expert] = 0;
  __syncthreads();
  std::int64_t const begin = blockIdx.x * args.tokens_per_block;
  std::int64_t const end = min(begin + args.tokens_per_block, args.handle.num_tokens);
  if (args.handle.expanded) {
    layout_expanded(args, begin, end, expert_counts, counts);
  } else {
    layout_flat(args, begin, end, expert_counts, counts);
  }
  __syncthreads();
  if (expert_counts == counts + world) return;
  for (int expert = static_cast<int>(threadIdx.x); expert < experts; expert += layout_threads)
    counts[world + expert] = expert_counts[expert];
}

}  // namespace switchyard::cuda
