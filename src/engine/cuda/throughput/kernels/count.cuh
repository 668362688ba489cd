// Layout: where each token goes, and its number within each stream; every block of the grid for its own tokens.
#pragma once

#include <cub/block/block_scan.cuh>

#include "engine/cuda/throughput/kernels/count_expanded.cuh"

namespace switchyard::cuda {

using LayoutScan = cub::BlockScan<int, layout_threads, cub::BLOCK_SCAN_WARP_SCANS>;

// With more experts than this, counts are kept in global memory.
inline constexpr int shared_expert_counts = 4096;

// In dynamic shared memory, which rows travel through afterwards.
struct LayoutShared {
  int few_experts[shared_expert_counts];
  int rows_end[max_node_ranks];  // by source
  union {
    FlatShared flat;
    ExpandedShared expanded;
    typename LayoutScan::TempStorage scan;
  };
};

// Blocks 0..cut.blocks-1.
__device__ inline void layout_phase(NotifyArgs const& args, LayoutShared& shared) {
  if (static_cast<int>(blockIdx.x) >= args.cut.blocks) return;
  int const experts = args.experts.num_experts();
  int const num_ranks = args.peers.num_ranks;
  int* const counts = block_counts_of(args.peers) + static_cast<std::size_t>(blockIdx.x) * (num_ranks + experts);
  int* const expert_counts = experts <= shared_expert_counts ? shared.few_experts : counts + num_ranks;
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x); expert < experts; expert += layout_threads)
    expert_counts[expert] = 0;
  __syncthreads();
  std::int64_t const begin = blockIdx.x * args.cut.tokens;
  std::int64_t const end = min(begin + args.cut.tokens, args.handle.num_tokens);
  if (args.handle.expanded) {
    layout_expanded(args, {begin, end}, expert_counts, counts, shared.expanded);
  } else {
    layout_flat(args, {begin, end}, expert_counts, counts, shared.flat);
  }
  __syncthreads();
  if (expert_counts == counts + num_ranks) return;
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x); expert < experts; expert += layout_threads)
    counts[num_ranks + expert] = expert_counts[expert];
}

}  // namespace switchyard::cuda
