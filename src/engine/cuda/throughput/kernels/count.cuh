// Count: where each token goes, and the number of its row within each stream. Each block counts its own range of
// tokens; one block then adds up what all blocks counted and sends the sums to the receivers.
#pragma once

#include <cub/block/block_scan.cuh>

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/throughput/args.hpp"
#include "layout/topology.hpp"

namespace switchyard::cuda {

// Threads of every block of a kernel that counts.
inline constexpr int count_threads = 640;

using CountScan = cub::BlockScan<int, count_threads, cub::BLOCK_SCAN_WARP_SCANS>;

// With more experts than this a block counts in global memory.
inline constexpr int shared_expert_counts = 4096;
inline constexpr int expanded_tile = 2048;  // slots

struct FlatShared {
  unsigned takers[count_threads / 32][max_node_ranks];  // of a warp's lanes, those whose token goes to the rank
  int firsts[count_threads / 32][max_node_ranks];       // the row of a warp's first taker
  int running[max_node_ranks];
};

struct ExpandedShared {
  int experts[expanded_tile];
  int numbers[expanded_tile];
};

// This lies in dynamic shared memory, which rows travel through afterwards.
struct CountShared {
  int few_experts[shared_expert_counts];
  int rows_end[max_node_ranks];  // by source
  union {
    FlatShared flat;
    ExpandedShared expanded;
    typename CountScan::TempStorage scan;
  };
};

// The expert of a slot by its id, or -1 when the slot is not used. An id that is out of range is noted.
__device__ inline int checked_expert(NotifyKernelArgs const& args, std::int64_t id, std::int64_t token, int slot) {
  if (id >= 0 && id < args.experts.num_experts()) return static_cast<int>(id);
  if (id != -1) {
    // The addition in is_last_block() orders this before the load_relaxed() in digest_to_announce().
    auto const place = static_cast<unsigned long long>(IdPlace{token, slot}.number());
    atomicMin(reinterpret_cast<unsigned long long*>(&state_of(args.peers)->bad_id), place);
  }
  return -1;
}

// The flat layout has one row for each (token, rank). Rows are numbered in token order within each (this rank,
// destination) stream.

// The ranks that a token goes to. Their order is that of combine's sum: by the last of a rank's slots, or by rank
// if there are no slots. The first few lie in a register: tokens seldom go to more.
class TokenRanks {
 public:
  // Ranks are added from the last to the first.
  __device__ void add(int rank) {
    if ((mask_ >> rank & 1) != 0) return;
    int const number = count();
    mask_ |= mask_of(rank);
    if (number < few) {
      few_ |= static_cast<std::uint64_t>(rank) << (8 * number);
    } else {
      more_[number - few] = static_cast<std::uint8_t>(rank);
    }
  }
  [[nodiscard]] __device__ int count() const { return __popcll(mask_); }
  [[nodiscard]] __device__ bool has(int rank) const { return (mask_ >> rank & 1) != 0; }
  [[nodiscard]] __device__ int at(int place) const {
    int const number = count() - 1 - place;
    return number < few ? static_cast<int>(few_ >> (8 * number) & 0xff) : more_[number - few];
  }

 private:
  static constexpr int few = 8;
  LocalRankMask mask_ = 0;
  std::uint64_t few_ = 0;
  std::uint8_t more_[max_node_ranks - few];
};

// Counts the experts, too, and notes the rank of each slot.
__device__ inline void read_token(NotifyKernelArgs const& args, std::int64_t token, int* expert_counts,
                                  TokenRanks& ranks) {
  if (args.ids.data == nullptr) {
    std::uint8_t const* const in_rank = args.token_in_rank + token * args.in_rank_strides[0];
    // Here and below loops stay rolled: code that runs once must first be fetched, which takes longer than a loop.
#pragma unroll 1
    for (int rank = args.peers.num_ranks - 1; rank >= 0; --rank) {
      if (in_rank[rank * args.in_rank_strides[1]] != 0) ranks.add(rank);
    }
    return;
  }
  constexpr int ahead = 8;  // ids that are loaded before the first is looked at
  int const top_k = args.handle.top_k;
#pragma unroll 1
  for (int begin = (top_k - 1) / ahead * ahead; begin >= 0; begin -= ahead) {
    std::int64_t ids[ahead];
    load_ids(args.ids, token, begin, top_k, ids);
#pragma unroll
    for (int i = ahead - 1; i >= 0; --i) {
      if (begin + i >= top_k) continue;
      int const expert = checked_expert(args, ids[i], token, begin + i);
      int const rank = expert < 0 ? -1 : args.experts.rank_of(expert);
      args.handle.slot_rank[token * top_k + begin + i] = static_cast<std::int16_t>(rank);
      if (rank < 0) continue;
      atomicAdd(&expert_counts[expert], 1);
      ranks.add(rank);
    }
  }
}

// Turns the warps' takers of a tile into first numbers, and moves `running` on. A warp does this for each rank,
// with a lane for each warp's count.
__device__ inline void number_warps(FlatShared& shared, int num_ranks) {
  constexpr int warps = count_threads / 32;
  static_assert(warps <= 32);
  int const lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll 1
  for (int rank = static_cast<int>(threadIdx.x / 32); rank < num_ranks; rank += warps) {
    int const count = lane < warps ? __popc(shared.takers[lane][rank]) : 0;
    int sum = count;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      int const before = __shfl_up_sync(~0U, sum, step);
      if (lane >= step) sum += before;
    }
    int const first = shared.running[rank];
    __syncwarp();
    if (lane < warps) shared.firsts[lane][rank] = first + sum - count;
    if (lane == 31) shared.running[rank] = first + sum;
  }
}

__device__ inline void count_flat_tile(NotifyKernelArgs const& args, std::int64_t token, bool mine,
                                       TokenRanks const& ranks, FlatShared& shared) {
  unsigned const lane = threadIdx.x % 32;
  unsigned const warp = threadIdx.x / 32;
#pragma unroll 1
  for (int rank = 0; rank < args.peers.num_ranks; ++rank) {
    unsigned const takers = __ballot_sync(~0U, ranks.has(rank));
    if (lane == 0) shared.takers[warp][rank] = takers;
  }
  __syncthreads();
  number_warps(shared, args.peers.num_ranks);
  __syncthreads();
  DeviceRoute* const routes = scratch_routes_of(args.peers) + token * args.handle.width;
  int const used = ranks.count();
#pragma unroll 1
  for (int place = 0; mine && place < args.handle.width; ++place) {
    DeviceRoute route{0, -1, -1};
    if (place < used) {
      int const rank = ranks.at(place);
      route.row = shared.firsts[warp][rank] + __popc(shared.takers[warp][rank] & ((1U << lane) - 1U));
      route.rank = static_cast<std::int16_t>(rank);
    }
    routes[place] = route;
  }
  __syncthreads();  // before the next tile counts
}

// `counts` are those of this block: rows by rank, then slots by expert.
__device__ inline void count_flat(NotifyKernelArgs const& args, TokenRange range, int* expert_counts, int* counts,
                                  FlatShared& shared) {
  if (static_cast<int>(threadIdx.x) < max_node_ranks) shared.running[threadIdx.x] = 0;
  __syncthreads();
  for (std::int64_t tile = range.begin; tile < range.end; tile += count_threads) {
    std::int64_t const token = tile + threadIdx.x;
    bool const mine = token < range.end;
    TokenRanks ranks;
    if (mine) read_token(args, token, expert_counts, ranks);
    count_flat_tile(args, token, mine, ranks, shared);
  }
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks) counts[threadIdx.x] = shared.running[threadIdx.x];
}

// The expanded layout has one row for each used slot. Rows are numbered in token order, then by slot, within each
// (this rank, expert) stream.

__device__ inline void read_experts(NotifyKernelArgs const& args, std::int64_t first_token, int slots,
                                    ExpandedShared& shared) {
  int const top_k = args.handle.top_k;
  for (int i = static_cast<int>(threadIdx.x); i < slots; i += count_threads)
    shared.experts[i] = checked_expert(args, id_at(args.ids, first_token + i / top_k, i % top_k),
                                       first_token + i / top_k, i % top_k);
  __syncthreads();
}

// A thread takes an expert and counts its slots in order, so that the numbers do not depend on scheduling.
__device__ inline void number_slots(NotifyKernelArgs const& args, int slots, int* expert_counts,
                                    ExpandedShared& shared) {
  for (int expert = static_cast<int>(threadIdx.x); expert < args.experts.num_experts(); expert += count_threads) {
    int next = expert_counts[expert];
    for (int i = 0; i < slots; ++i) {
      if (shared.experts[i] == expert) shared.numbers[i] = next++;
    }
    expert_counts[expert] = next;
  }
  __syncthreads();
}

// Writes a token's routes by slot, which is the order of combine's sum.
__device__ inline void write_routes(NotifyKernelArgs const& args, std::int64_t token, int const* experts,
                                    int const* numbers) {
  int const top_k = args.handle.top_k;
  DeviceRoute* const routes = scratch_routes_of(args.peers) + token * args.handle.width;
  int used = 0;
  for (int slot = 0; slot < top_k; ++slot) {
    if (experts[slot] < 0) continue;
    routes[used++] = {numbers[slot], static_cast<std::int16_t>(args.experts.rank_of(experts[slot])),
                      static_cast<std::int16_t>(slot)};
  }
  for (; used < args.handle.width; ++used) routes[used] = {0, -1, -1};
}

__device__ inline void count_expanded(NotifyKernelArgs const& args, TokenRange range, int* expert_counts,
                                      int* counts, ExpandedShared& shared) {
  int const top_k = args.handle.top_k;
  int const tile_tokens = expanded_tile / top_k;
  for (std::int64_t tile = range.begin; tile < range.end; tile += tile_tokens) {
    int const tokens = static_cast<int>(range.end - tile < tile_tokens ? range.end - tile : tile_tokens);
    read_experts(args, tile, tokens * top_k, shared);
    number_slots(args, tokens * top_k, expert_counts, shared);
    for (int t = static_cast<int>(threadIdx.x); t < tokens; t += count_threads)
      write_routes(args, tile + t, shared.experts + t * top_k, shared.numbers + t * top_k);
    __syncthreads();
  }
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks) counts[threadIdx.x] = 0;
}

// All threads of every block call this; blocks 0..cut.blocks-1 count.
__device__ inline void count_phase(NotifyKernelArgs const& args, CountShared& shared) {
  if (static_cast<int>(blockIdx.x) >= args.cut.blocks) return;
  int const experts = args.experts.num_experts();
  int const num_ranks = args.peers.num_ranks;
  int* const counts = block_counts_of(args.peers) + static_cast<std::size_t>(blockIdx.x) * (num_ranks + experts);
  int* const expert_counts = experts <= shared_expert_counts ? shared.few_experts : counts + num_ranks;
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x); expert < experts; expert += count_threads)
    expert_counts[expert] = 0;
  __syncthreads();
  std::int64_t const begin = blockIdx.x * args.cut.tokens;
  std::int64_t const end = min(begin + args.cut.tokens, args.handle.num_tokens);
  if (args.handle.expanded) {
    count_expanded(args, {begin, end}, expert_counts, counts, shared.expanded);
  } else {
    count_flat(args, {begin, end}, expert_counts, counts, shared.flat);
  }
  __syncthreads();
  if (expert_counts == counts + num_ranks) return;
#pragma unroll 1
  for (int expert = static_cast<int>(threadIdx.x); expert < experts; expert += count_threads)
    counts[num_ranks + expert] = expert_counts[expert];
}

// Turns the blocks' counts of one stream into first numbers, and returns the sum.
__device__ inline std::int32_t number_blocks(std::int32_t* counts, int blocks, int streams) {
  constexpr int together = 16;  // loads before the first store: one round trip to memory instead of one a block
  std::int32_t total = 0;
  for (int first = 0; first < blocks; first += together) {
    std::int32_t of_block[together];
#pragma unroll
    for (int i = 0; i < together; ++i) of_block[i] = first + i < blocks ? counts[i * streams] : 0;
#pragma unroll
    for (int i = 0; i < together; ++i) {
      if (first + i < blocks) counts[i * streams] = total;
      total += of_block[i];
    }
    counts += together * streams;
  }
  return total;
}

// One block, after all have counted: the sums go to the receivers. announce_digest() publishes them.
__device__ inline void send_counts(NotifyKernelArgs const& args) {
  int const num_ranks = args.peers.num_ranks;
  int const streams = num_ranks + args.experts.num_experts();
  std::int32_t* const counts = block_counts_of(args.peers);
  for (int stream = static_cast<int>(threadIdx.x); stream < streams; stream += count_threads) {
    std::int32_t const total = number_blocks(counts + stream, args.cut.blocks, streams);
    int const expert = stream - num_ranks;
    int const peer = expert < 0 ? stream : args.experts.rank_of(expert);
    int const slot = expert < 0 ? 0 : 1 + expert - args.experts.first(peer);
    counts_of(args.peers, peer, args.peers.rank)[slot] = total;
  }
  __syncthreads();
}

}  // namespace switchyard::cuda
