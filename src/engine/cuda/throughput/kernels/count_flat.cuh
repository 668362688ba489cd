// Layout, flat: one row per (token, rank). A block of the grid numbers the rows of its own range of tokens, in
// token order, within each (this rank, destination) stream.
#pragma once

#include "engine/cuda/throughput/kernels/checked_expert.cuh"

namespace switchyard::cuda {

// Of every block of a kernel that begins with a layout.
inline constexpr int layout_threads = 640;

struct TokenRange {
  std::int64_t begin;
  std::int64_t end;
};

struct FlatShared {
  int warp_counts[layout_threads / 32][max_node_ranks];
  int running[max_node_ranks];
};

// Bit r: the token goes to rank r. Counts the experts and notes the rank of each slot.
__device__ inline std::uint64_t ranks_of_token(NotifyArgs const& args, std::int64_t token, int* expert_counts) {
  std::uint64_t mask = 0;
  if (args.ids.data == nullptr) {
    std::uint8_t const* const in_rank = args.token_in_rank + token * args.in_rank_strides[0];
#pragma unroll 1  // here and below: code that runs once must first be fetched, which takes longer than a loop
    for (int rank = 0; rank < args.peers.num_ranks; ++rank) {
      if (in_rank[rank * args.in_rank_strides[1]] != 0) mask |= std::uint64_t{1} << rank;
    }
    return mask;
  }
  constexpr int ahead = 8;  // ids asked for before the first is looked at
  int const top_k = args.handle.top_k;
#pragma unroll 1
  for (int begin = 0; begin < top_k; begin += ahead) {
    std::int64_t ids[ahead];
    load_ids(args.ids, token, begin, top_k, ids);
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      if (begin + i >= top_k) break;
      int const expert = checked_expert(args, ids[i], token, begin + i);
      int const rank = expert < 0 ? -1 : args.experts.rank_of(expert);
      args.handle.slot_rank[token * top_k + begin + i] = static_cast<std::int16_t>(rank);
      if (rank < 0) continue;
      atomicAdd(&expert_counts[expert], 1);
      mask |= std::uint64_t{1} << rank;
    }
  }
  return mask;
}

// Turns the warps' counts of a tile into first numbers, and moves `running` on: a warp for each rank, a lane for
// each warp's count.
__device__ inline void number_warps(FlatShared& shared, int num_ranks) {
  constexpr int warps = layout_threads / 32;
  static_assert(warps <= 32);
  int const lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll 1
  for (int rank = static_cast<int>(threadIdx.x / 32); rank < num_ranks; rank += warps) {
    int const count = lane < warps ? shared.warp_counts[lane][rank] : 0;
    int sum = count;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      int const before = __shfl_up_sync(~0U, sum, step);
      if (lane >= step) sum += before;
    }
    int const first = shared.running[rank];
    __syncwarp();
    if (lane < warps) shared.warp_counts[lane][rank] = first + sum - count;
    if (lane == 31) shared.running[rank] = first + sum;
  }
}

__device__ inline void layout_flat_tile(NotifyArgs const& args, std::int64_t token, bool mine, std::uint64_t mask,
                                        FlatShared& shared) {
  unsigned const lane = threadIdx.x % 32;
  unsigned const warp = threadIdx.x / 32;
  for (int rank = 0; rank < args.peers.num_ranks; ++rank) {
    unsigned const takers = __ballot_sync(~0U, (mask >> rank & 1) != 0);
    if (lane == 0) shared.warp_counts[warp][rank] = __popc(takers);
  }
  __syncthreads();
  number_warps(shared, args.peers.num_ranks);
  __syncthreads();
  DeviceRoute* const routes = scratch_routes_of(args.peers) + token * args.handle.width;
  int used = 0;
#pragma unroll 1
  for (int rank = 0; rank < args.peers.num_ranks; ++rank) {
    unsigned const takers = __ballot_sync(~0U, (mask >> rank & 1) != 0);
    if ((mask >> rank & 1) == 0) continue;
    int const before = __popc(takers & ((1U << lane) - 1U));
    routes[used++] = {shared.warp_counts[warp][rank] + before, static_cast<std::int16_t>(rank), -1};
  }
#pragma unroll 1
  for (; mine && used < args.handle.width; ++used) routes[used] = {0, -1, -1};
  __syncthreads();  // before the next tile counts
}

// `counts`: [num_ranks] rows, then [experts] slots of this block.
__device__ inline void layout_flat(NotifyArgs const& args, TokenRange range, int* expert_counts, int* counts,
                                   FlatShared& shared) {
  if (static_cast<int>(threadIdx.x) < max_node_ranks) shared.running[threadIdx.x] = 0;
  __syncthreads();
  for (std::int64_t tile = range.begin; tile < range.end; tile += layout_threads) {
    std::int64_t const token = tile + threadIdx.x;
    bool const mine = token < range.end;
    layout_flat_tile(args, token, mine, mine ? ranks_of_token(args, token, expert_counts) : 0, shared);
  }
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks) counts[threadIdx.x] = shared.running[threadIdx.x];
}

}  // namespace switchyard::cuda
