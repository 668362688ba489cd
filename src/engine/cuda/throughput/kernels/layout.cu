// The layout kernel: it counts what this rank would send to whom, and sends nothing.
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/throughput/launch.hpp"
#include "layout/topology.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int threads = 512;
// With more streams than this a block counts in global memory.
inline constexpr int most_shared_streams = 8192;

extern __shared__ int shared_counts[];

// The counts of this block: tokens by rank, then slots by expert.
__device__ int* counts_of_block(LayoutKernelArgs const& args, int streams) {
  return streams <= most_shared_streams
             ? shared_counts
             : block_counts_of(args.peers) + static_cast<std::size_t>(blockIdx.x) * streams;
}

// The ranks that a token goes to, as a mask. Ids out of range count as unused: no host waits for this kernel that
// could throw. A dispatch refuses them.
__device__ std::uint64_t count_token(LayoutKernelArgs const& args, std::int64_t token, int* expert_counts) {
  constexpr int ahead = 8;  // ids that are loaded before the first is looked at
  LocalRankMask mask = 0;
#pragma unroll 1
  for (int first = 0; first < args.handle.top_k; first += ahead) {
    std::int64_t ids[ahead];
    load_ids(args.ids, token, first, args.handle.top_k, ids);
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      if (ids[i] < 0 || ids[i] >= args.experts.num_experts()) continue;
      atomicAdd(&expert_counts[ids[i]], 1);
      mask |= mask_of(args.experts.rank_of(static_cast<int>(ids[i])));
    }
  }
  return mask;
}

__device__ void count_ranks(LayoutKernelArgs const& args, LocalRankMask mask, int* rank_counts) {
#pragma unroll 1
  for (int rank = 0; rank < args.peers.num_ranks; ++rank) {
    int const takers = __popc(__ballot_sync(~0U, (mask >> rank & 1) != 0));
    if (threadIdx.x % 32 == 0 && takers > 0) atomicAdd(&rank_counts[rank], takers);
  }
}

// The ranks that a token goes to.
struct TokenRanks {
  std::int64_t token;  // -1: there is none
  LocalRankMask mask;
};

__device__ void write_ranks(LayoutKernelArgs const& args, TokenRanks const& of) {
  if (of.token < 0) return;
  std::uint8_t* const out = args.is_token_in_rank + of.token * args.peers.num_ranks;
#pragma unroll 1
  for (int rank = 0; rank < args.peers.num_ranks; ++rank)
    out[rank] = static_cast<std::uint8_t>(of.mask >> rank & 1);
}

// Returns the thread's last token, whose ranks are still to be written: the counts must not wait for that.
__device__ TokenRanks count_range(LayoutKernelArgs const& args, int* counts) {
  TokenRanks latest{-1, 0};
  std::int64_t const begin = blockIdx.x * args.cut.tokens;
  std::int64_t const end = min(begin + args.cut.tokens, args.handle.num_tokens);
  for (std::int64_t tile = begin; tile < end; tile += threads) {
    std::int64_t const token = tile + threadIdx.x;
    bool const mine = token < end;
    write_ranks(args, latest);
    latest = {mine ? token : -1, mine ? count_token(args, token, counts + args.peers.num_ranks) : 0};
    count_ranks(args, latest.mask, counts);
  }
  return latest;
}

// The last block does this.
__device__ void sum_blocks(LayoutKernelArgs const& args, int streams) {
  int const* const blocks = block_counts_of(args.peers);
  for (int stream = static_cast<int>(threadIdx.x); stream < streams; stream += threads) {
    int total = 0;
#pragma unroll 16
    for (int block = 0; block < args.cut.blocks; ++block) total += blocks[block * streams + stream];
    if (stream < args.peers.num_ranks) {
      args.tokens_per_rank[stream] = total;
    } else {
      args.tokens_per_expert[stream - args.peers.num_ranks] = total;
    }
  }
}

__global__ void __launch_bounds__(threads) layout_kernel(__grid_constant__ LayoutKernelArgs const args) {
  ptx::wait_for_kernel_before();
  stamp(args.peers, Stamp::started, blockIdx.x == 0);
  int const streams = args.peers.num_ranks + args.experts.num_experts();
  int* const counts = counts_of_block(args, streams);
  for (int i = static_cast<int>(threadIdx.x); i < streams; i += threads) counts[i] = 0;
  __syncthreads();
  TokenRanks const latest = count_range(args, counts);
  __syncthreads();
  int* const out = block_counts_of(args.peers) + static_cast<std::size_t>(blockIdx.x) * streams;
  for (int i = static_cast<int>(threadIdx.x); out != counts && i < streams; i += threads) out[i] = counts[i];
  bool const last = is_last_block<Readers::own>(&state_of(args.peers)->blocks_done);
  write_ranks(args, latest);
  if (!last) return;
  sum_blocks(args, streams);
  __syncthreads();
  stamp(args.peers, Stamp::counted);
}

}  // namespace

cudaError_t launch_layout(LayoutKernelArgs const& args, cudaStream_t stream) {
  int const streams = args.peers.num_ranks + args.experts.num_experts();
  std::size_t const shared = streams <= most_shared_streams ? static_cast<std::size_t>(streams) * sizeof(int) : 0;
  return launch_next(layout_kernel, args, {args.cut.blocks, threads, shared}, stream);
}

cudaError_t load_layout() {
  return load_kernel(layout_kernel);
}

}  // namespace switchyard::cuda
