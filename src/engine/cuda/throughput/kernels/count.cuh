// Count: where each token goes, and the number of its row within each stream. Few tokens are counted by every block
// for itself. Of many each block counts a range; one block then adds up what all blocks counted. One block sends
// the sums to the receivers.
#pragma once

#include <cub/block/block_scan.cuh>

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/throughput/args.hpp"
#include "layout/topology.hpp"

namespace switchyard::cuda {

using CountScan = cub::BlockScan<int, count_threads, cub::BLOCK_SCAN_WARP_SCANS>;

// With more experts than this a block counts in global memory.
inline constexpr int shared_expert_counts = 4096;
inline constexpr int expanded_tile = 2048;  // slots

struct FlatShared {
  unsigned takers[count_threads / 32][max_node_ranks];  // of a warp's lanes, those with a row at the rank
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
__device__ inline int checked_expert(NotifyKernelArgs const& args, std::int64_t id, std::int64_t token, int slot,
                                     bool notes = true) {
  if (id >= 0 && id < args.experts.num_experts()) return static_cast<int>(id);
  if (notes && id != -1) {
    // A barrier of the block, or the addition in is_last_block(), orders this before the load_relaxed() in
    // digest_to_announce().
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

// Which of the blocks that read a token does what with it.
struct TokenDuties {
  int* expert_counts;  // where experts are counted, and ids out of range noted; null: another block does that
  bool writes;         // where the token goes
};

// What a slot says: an expert's id, or, if ids were not given, the rank that the slot stands for; -1: nothing.
__device__ inline std::int64_t read_slot(NotifyKernelArgs const& args, std::int64_t token, int slot) {
  if (args.ids.data != nullptr) return id_at(args.ids, token, slot);
  return args.token_in_rank[token * args.in_rank_strides[0] + slot * args.in_rank_strides[1]] != 0 ? slot : -1;
}

// The rank that a slot's token goes to by what the slot says, or -1.
__device__ inline int rank_of_slot(NotifyKernelArgs const& args, std::int64_t said, IdPlace place,
                                   TokenDuties duties) {
  if (args.ids.data == nullptr) return static_cast<int>(said);
  int const expert = checked_expert(args, said, place.token, place.slot, duties.expert_counts != nullptr);
  int const rank = expert < 0 ? -1 : args.experts.rank_of(expert);
  if (duties.writes)
    args.handle.slot_rank[place.token * args.handle.top_k + place.slot] = static_cast<std::int16_t>(rank);
  if (expert >= 0 && duties.expert_counts != nullptr) atomicAdd(&duties.expert_counts[expert], 1);
  return rank;
}

// Counts the experts, too, and notes the rank of each slot.
__device__ inline void read_token(NotifyKernelArgs const& args, std::int64_t token, TokenDuties duties,
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
      int const rank = rank_of_slot(args, ids[i], {token, begin + i}, duties);
      if (rank < 0) continue;
      ranks.add(rank);
    }
  }
}

// The sum of what the lanes up to this one pass. All lanes of a warp call it.
__device__ inline int sum_up_to_lane(int value) {
  int const lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    int const before = __shfl_up_sync(~0U, value, step);
    if (lane >= step) value += before;
  }
  return value;
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
    int const sum = sum_up_to_lane(count);
    int const first = shared.running[rank];
    __syncwarp();
    if (lane < warps) shared.firsts[lane][rank] = first + sum - count;
    if (lane == 31) shared.running[rank] = first + sum;
  }
}

__device__ inline void count_flat_tile(NotifyKernelArgs const& args, std::int64_t token, bool writes,
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
  for (int place = 0; writes && place < args.handle.width; ++place) {
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

// A block's share of the tokens to count, and what it does with each.
struct CountedTokens {
  TokenRange range;
  int* expert_counts;  // as in TokenDuties
  bool own_only;       // it writes where its own tokens go (BlockTokens), not where all of the range go

  [[nodiscard]] __device__ TokenDuties duties(std::int64_t token) const {
    bool const writes =
        token < range.end && (!own_only || static_cast<std::uint32_t>(token) % gridDim.x == blockIdx.x);
    return {expert_counts, writes};
  }
};

// A thread takes a token.
__device__ inline void count_by_tokens(NotifyKernelArgs const& args, CountedTokens const& tokens,
                                       FlatShared& shared) {
  for (std::int64_t tile = tokens.range.begin; tile < tokens.range.end; tile += count_threads) {
    std::int64_t const token = tile + threadIdx.x;
    TokenDuties const duties = tokens.duties(token);
    TokenRanks ranks;
    if (token < tokens.range.end) read_token(args, token, duties, ranks);
    count_flat_tile(args, token, duties.writes, ranks, shared);
  }
}

// The slot of a lane, when neighbouring lanes take the slots of a token.
struct SlotOfLane {
  int token;       // of the warp's
  int slot;        // of the token's
  unsigned group;  // lanes with the same token
};

__device__ inline SlotOfLane slot_of_lane(int slots) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  int const token = static_cast<int>(static_cast<unsigned>(lane) / static_cast<unsigned>(slots));
  unsigned const first = (slots < 32 ? 1U << slots : 0U) - 1U;
  return {token, lane - token * slots, first << (token * slots)};
}

// `rank`: where the lane's slot has its token go, or -1. A token has one row at a rank, by the last of the slots
// that name it.
__device__ inline void count_slots_tile(NotifyKernelArgs const& args, std::int64_t token, SlotOfLane const& of,
                                        int rank, bool writes, FlatShared& shared) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  unsigned const warp = threadIdx.x / 32;
  unsigned const below = (1U << lane) - 1U;
#pragma unroll 1
  for (int i = lane; i < args.peers.num_ranks; i += 32) shared.takers[warp][i] = 0;
  __syncwarp();
  unsigned const same = __match_any_sync(~0U, rank < 0 ? -1 - lane : of.token * max_node_ranks + rank);
  bool const last = rank >= 0 && same >> lane == 1U;
  unsigned const lasts = __ballot_sync(~0U, last);
  unsigned const takers = __match_any_sync(~0U, last ? rank : -1 - lane);
  if (last && (takers & below) == 0) shared.takers[warp][rank] = takers;
  __syncthreads();
  number_warps(shared, args.peers.num_ranks);
  __syncthreads();
  if (!writes) return;
  DeviceRoute* const routes = scratch_routes_of(args.peers) + token * args.handle.width;
  int const used = __popc(lasts & of.group);
  if (last)
    routes[__popc(lasts & of.group & below)] = {shared.firsts[warp][rank] + __popc(takers & below),
                                                static_cast<std::int16_t>(rank), -1};
  if (of.slot >= used && of.slot < args.handle.width) routes[of.slot] = {0, -1, -1};
}

// A lane takes a slot: where a warp has room for all slots of a token this takes few instructions, and few loads
// one after the other.
__device__ inline void count_by_slots(NotifyKernelArgs const& args, CountedTokens const& tokens, int slots,
                                      FlatShared& shared) {
  SlotOfLane const of = slot_of_lane(slots);
  int const warp_tokens = static_cast<int>(32U / static_cast<unsigned>(slots));
  bool const idle = of.token >= warp_tokens;
  int const step = count_threads / 32 * warp_tokens;
  std::int64_t token = tokens.range.begin + static_cast<int>(threadIdx.x / 32) * warp_tokens + of.token;
  std::int64_t next = !idle && token < tokens.range.end ? read_slot(args, token, of.slot) : -1;
#pragma unroll 1
  for (std::int64_t tile = tokens.range.begin; tile < tokens.range.end; tile += step, token += step) {
    std::int64_t const said = next;
    bool const more = !idle && token + step < tokens.range.end;
    next = more ? read_slot(args, token + step, of.slot) : -1;
    TokenDuties duties = tokens.duties(token);
    if (idle) duties.writes = false;
    int rank = -1;
    if (!idle && token < tokens.range.end) rank = rank_of_slot(args, said, {token, of.slot}, duties);
    count_slots_tile(args, token, of, rank, duties.writes, shared);
  }
}

// When it returns, `shared.running` has the rows by rank.
__device__ inline void count_flat(NotifyKernelArgs const& args, CountedTokens const& tokens, FlatShared& shared) {
  if (static_cast<int>(threadIdx.x) < max_node_ranks) shared.running[threadIdx.x] = 0;
  __syncthreads();
  int const slots = args.handle.top_k > 0 ? args.handle.top_k : args.peers.num_ranks;
  if (slots <= 32) {
    count_by_slots(args, tokens, slots, shared);
  } else {
    count_by_tokens(args, tokens, shared);
  }
  __syncthreads();
}

// Does every block count all tokens for itself? Then none waits for another before the rank announces.
__device__ inline bool counts_alone(NotifyKernelArgs const& args) {
  return args.cut.blocks == 1 && !args.handle.expanded;
}

// Where the block that speaks for the rank counts experts.
__device__ inline int* expert_counts_of(NotifyKernelArgs const& args, CountShared& shared) {
  return args.experts.num_experts() <= shared_expert_counts ? shared.few_experts
                                                            : block_counts_of(args.peers) + args.peers.num_ranks;
}

__device__ inline void clear_counts(int* counts, int number) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < number; i += count_threads) counts[i] = 0;
}

// Every block calls this if counts_alone(), and writes where its own tokens go. One block `speaks` for the rank.
__device__ inline void count_alone(NotifyKernelArgs const& args, bool speaks, CountShared& shared) {
  int* const expert_counts = speaks ? expert_counts_of(args, shared) : nullptr;
  if (speaks) clear_counts(expert_counts, args.experts.num_experts());
  count_flat(args, {{0, args.handle.num_tokens}, expert_counts, true}, shared.flat);
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

// All threads of every block call this unless counts_alone(); blocks 0..cut.blocks-1 count.
__device__ inline void count_phase(NotifyKernelArgs const& args, CountShared& shared) {
  if (static_cast<int>(blockIdx.x) >= args.cut.blocks) return;
  int const experts = args.experts.num_experts();
  int const num_ranks = args.peers.num_ranks;
  int* const counts = block_counts_of(args.peers) + static_cast<std::size_t>(blockIdx.x) * (num_ranks + experts);
  int* const expert_counts = experts <= shared_expert_counts ? shared.few_experts : counts + num_ranks;
  clear_counts(expert_counts, experts);
  __syncthreads();
  std::int64_t const begin = blockIdx.x * args.cut.tokens;
  std::int64_t const end = min(begin + args.cut.tokens, args.handle.num_tokens);
  if (args.handle.expanded) {
    count_expanded(args, {begin, end}, expert_counts, counts, shared.expanded);
  } else {
    count_flat(args, {{begin, end}, expert_counts, false}, shared.flat);
    if (static_cast<int>(threadIdx.x) < num_ranks) counts[threadIdx.x] = shared.flat.running[threadIdx.x];
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

// The sum of a stream: of a rank, or of an expert behind all ranks.
__device__ inline std::int32_t sum_of_stream(NotifyKernelArgs const& args, int stream, CountShared& shared) {
  int const num_ranks = args.peers.num_ranks;
  if (!counts_alone(args))
    return number_blocks(block_counts_of(args.peers) + stream, args.cut.blocks,
                         num_ranks + args.experts.num_experts());
  return stream < num_ranks ? shared.flat.running[stream] : expert_counts_of(args, shared)[stream - num_ranks];
}

// One block, when all is counted: the sums go to the receivers, and how many rows each receiver gets goes to all,
// so that they find the place of theirs. announce_dispatch() publishes them.
__device__ inline void send_counts(NotifyKernelArgs const& args, CountShared& shared) {
  int const num_ranks = args.peers.num_ranks;
  int const streams = num_ranks + args.experts.num_experts();
#pragma unroll 1
  for (int stream = static_cast<int>(threadIdx.x); stream < streams; stream += count_threads) {
    std::int32_t const total = sum_of_stream(args, stream, shared);
    int const expert = stream - num_ranks;
    int const peer = expert < 0 ? stream : args.experts.rank_of(expert);
    int const slot = expert < 0 ? 0 : 1 + expert - args.experts.first(peer);
    counts_of(args.peers, peer, args.peers.rank)[slot] = total;
#pragma unroll 1
    for (int owner = 0; expert < 0 && owner < num_ranks; ++owner)
      totals_of(args.peers, owner, args.peers.rank)[stream] = total;
  }
  __syncthreads();
}

}  // namespace switchyard::cuda
