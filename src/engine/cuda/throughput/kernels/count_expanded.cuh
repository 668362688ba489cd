// Layout, expanded: one row per used slot, numbered within each (this rank, expert) stream in token order, then by
// slot.
#pragma once

#include "engine/cuda/throughput/kernels/count_flat.cuh"

namespace switchyard::cuda {

inline constexpr int expanded_tile = 2048;  // slots

struct ExpandedShared {
  int experts[expanded_tile];
  int numbers[expanded_tile];
};

__device__ inline void read_experts(NotifyArgs const& args, std::int64_t first_token, int slots,
                                    ExpandedShared& shared) {
  int const top_k = args.handle.top_k;
  for (int i = static_cast<int>(threadIdx.x); i < slots; i += layout_threads)
    shared.experts[i] = checked_expert(args, id_at(args.ids, first_token + i / top_k, i % top_k),
                                       first_token + i / top_k, i % top_k);
  __syncthreads();
}

// A thread takes an expert and counts along: so numbers follow the order of slots, whatever the scheduling.
__device__ inline void number_slots(NotifyArgs const& args, int slots, int* expert_counts, ExpandedShared& shared) {
  for (int expert = static_cast<int>(threadIdx.x); expert < args.experts.num_experts(); expert += layout_threads) {
    int next = expert_counts[expert];
    for (int i = 0; i < slots; ++i) {
      if (shared.experts[i] == expert) shared.numbers[i] = next++;
    }
    expert_counts[expert] = next;
  }
  __syncthreads();
}

// A token's routes by expert, then slot: the order of combine's sum.
__device__ inline void write_routes(NotifyArgs const& args, std::int64_t token, int const* experts,
                                    int const* numbers) {
  int const top_k = args.handle.top_k;
  DeviceRoute* const routes = scratch_routes_of(args.peers) + token * args.handle.width;
  int used = 0;
  for (int slot = 0; slot < top_k; ++slot) {
    if (experts[slot] < 0) continue;
    ++used;
    int place = 0;
    for (int other = 0; other < top_k; ++other) {
      bool const before = experts[other] < experts[slot] || (experts[other] == experts[slot] && other < slot);
      if (experts[other] >= 0 && before) ++place;
    }
    routes[place] = {numbers[slot], static_cast<std::int16_t>(args.experts.rank_of(experts[slot])),
                     static_cast<std::int16_t>(slot)};
  }
  for (; used < args.handle.width; ++used) routes[used] = {0, -1, -1};
}

__device__ inline void layout_expanded(NotifyArgs const& args, TokenRange range, int* expert_counts, int* counts,
                                       ExpandedShared& shared) {
  int const top_k = args.handle.top_k;
  int const tile_tokens = expanded_tile / top_k;
  for (std::int64_t tile = range.begin; tile < range.end; tile += tile_tokens) {
    int const tokens = static_cast<int>(range.end - tile < tile_tokens ? range.end - tile : tile_tokens);
    read_experts(args, tile, tokens * top_k, shared);
    number_slots(args, tokens * top_k, expert_counts, shared);
    for (int t = static_cast<int>(threadIdx.x); t < tokens; t += layout_threads)
      write_routes(args, tile + t, shared.experts + t * top_k, shared.numbers + t * top_k);
    __syncthreads();
  }
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks) counts[threadIdx.x] = 0;
}

}  // namespace switchyard::cuda
