// Low-latency dispatch: where the rows of a wave of tokens go, and all that travels with them except scales.
#pragma once

#include "engine/cuda/low_latency/kernels/claim.cuh"
#include "engine/cuda/low_latency/kernels/count.cuh"
#include "engine/cuda/low_latency/kernels/wave.cuh"
#include "layout/topology.hpp"

namespace switchyard::cuda {

// A row's number in the bay at the rank that has the expert.
__device__ inline std::int32_t row_in_bay(SlotArgs const& args, int rank, int expert, std::int32_t position) {
  if (args.rank_major) return args.peers.rank * static_cast<std::int32_t>(args.max_tokens) + position;
  return (expert - args.experts.first(rank)) * static_cast<std::int32_t>(args.rows_of_expert()) + position;
}

struct SlotPlace {
  int rank;
  int local;         // number of the expert at that rank
  std::int32_t row;  // in the bay
  std::int32_t position;
};

__device__ inline std::byte* scales_of(SlotDispatchArgs const& args, PeerBays const& bays, SlotPlace const& place) {
  std::int64_t const at = args.scales_by_column ? place.local * args.rows_of_expert() * args.scale_bytes +
                                                      place.position * std::int64_t{4}
                                                : static_cast<std::int64_t>(place.row) * args.scale_bytes;
  return bay_part<std::byte>(bays, place.rank, args.at.scales) + at;
}

// Has an earlier slot of the token the same stream? `streams` are those of the token.
__device__ inline bool has_earlier(int const* streams, int slot) {
  constexpr int at_once = 8;
  int const stream = streams[slot];
  bool found = false;
#pragma unroll 1
  for (int first = 0; first < slot; first += at_once) {
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (first + i < slot) found |= streams[first + i] == stream;
    }
  }
  return found;
}

// A thread's slot of a wave. Numbers are -1 when it is not used.
struct OwnSlot {
  bool there;  // the wave has such a slot
  int expert;
  int rank;
  int stream;
  std::uint32_t number;  // of the row within its stream
  bool first;            // it has a row of its own: rank_major, the first of the token's slots with this stream
};

// The row's position in its stream, or -1 when nothing can be sent there.
__device__ inline std::int32_t position_of(SlotDispatchArgs const& args, OwnSlot const& own, SendState const& state,
                                           int* failed) {
  if (args.rank_major) return (state.masked >> own.rank & 1) == 0 ? static_cast<std::int32_t>(own.number) : -1;
  std::uint32_t const base = wait_for_base(args, state.epoch, own.expert, failed);
  return base == no_base ? -1 : static_cast<std::int32_t>(base + own.number);
}

// All threads of a block call this. It finds what does not depend on claims, for this thread's slot. `id` is what
// load_own_id() gave for the wave, whose tokens are of the batch that was marked last.
__device__ inline OwnSlot number_wave(SlotDispatchArgs const& args, Wave const& wave, StreamRows const& rows,
                                      std::int64_t id) {
  int const thread = static_cast<int>(threadIdx.x);
  SlotOfToken const at = slot_of_token(args, thread);
  OwnSlot own{.there = at.token < wave.tokens, .expert = -1, .rank = -1, .stream = -1, .number = 0, .first = false};
  if (own.there) {
    own.expert = checked_expert(args, id, wave.first + at.token, at.slot);
    own.rank = own.expert < 0 ? -1 : args.owners.rank_of(own.expert);
    own.stream = args.rank_major ? own.rank : own.expert;
    wave.stream[thread] = own.stream;  // no thread reads those of the last wave any more
  }
  __syncthreads();
  if (own.stream >= 0) {
    own.first = !args.rank_major || !has_earlier(wave.stream + at.token * args.top_k, at.slot);
    own.number = rows.before_of(own.stream, static_cast<int>((wave.first + at.token) % batch_tokens));
    if (rows.repeated) {
      int const number = number_repeated(args, own.expert, wave.first + at.token, at.slot);
      if (number < 0) own.stream = -1;
      own.number = static_cast<std::uint32_t>(number);
    }
  }
  return own;
}

// All threads of a block call this after number_wave(). Rows can be sent afterwards.
__device__ inline void place_wave(SlotDispatchArgs const& args, Wave const& wave, OwnSlot const& own,
                                  SendState const& state, int* failed) {
  int const thread = static_cast<int>(threadIdx.x);
  if (own.there) {
    std::int32_t const position = own.stream >= 0 ? position_of(args, own, state, failed) : -1;
    std::byte* row = nullptr;
    std::byte* scales = nullptr;
    if (own.first && position >= 0) {
      SlotPlace const place{.rank = own.rank,
                            .local = own.expert - args.experts.first(own.rank),
                            .row = row_in_bay(args, own.rank, own.expert, position),
                            .position = position};
      row = bay_part<std::byte>(*state.bays, own.rank, args.at.x) +
            static_cast<std::int64_t>(place.row) * args.row_bytes;
      scales = scales_of(args, *state.bays, place);
    }
    wave.expert[thread] = own.expert;
    wave.row[thread] = row;
    wave.scales[thread] = scales;
    // With rank_major a combine reads one row of a rank.
    wave.position[thread] = own.first || !args.rank_major ? position : -1;
  }
  __syncthreads();
}

// rank_major: the receivers learn which of their experts a wave's tokens want. A thread writes one slot of the list
// that goes with the row of one slot.
__device__ inline void send_topk(SlotDispatchArgs const& args, Wave const& wave, PeerBays const& bays) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < wave.tokens * args.top_k * args.top_k; i += slot_threads) {
    auto const [at, slot] = slot_of_token(args, i);  // the slot whose row it is, and the slot of the list
    if (wave.row[at] == nullptr) continue;
    std::int64_t const token = slot_of_token(args, at).token;
    int const rank = args.owners.rank_of(wave.expert[at]);
    int const local = wave.expert[token * args.top_k + slot] - args.experts.first(rank);
    bool const ours = local >= 0 && local < args.experts.count(rank);
    std::int64_t const to =
        row_in_bay(args, rank, wave.expert[at], wave.position[at]) * static_cast<std::int64_t>(args.top_k) + slot;
    bay_part<std::int32_t>(bays, rank, args.at.topk_idx)[to] = ours ? local : -1;
    if (args.weights.data == nullptr) continue;
    std::int64_t const from = (wave.first + token) * args.weights.row_stride + slot * args.weights.column_stride;
    bay_part<float>(bays, rank, args.at.topk_weights)[to] = ours ? args.weights.data[from] : 0.0F;
  }
}

// All threads of a block call this after place_wave(). It writes all that goes with rows except scales, and what
// the combine needs.
__device__ inline void send_metadata(SlotDispatchArgs const& args, Wave const& wave, PeerBays const& bays) {
  int const thread = static_cast<int>(threadIdx.x);
  if (thread < wave.tokens * args.top_k) {
    std::int64_t const at = wave.first * args.top_k + thread;
    int const expert = wave.expert[thread];
    std::int32_t const position = wave.position[thread];
    std::int32_t noted = -1;
    if (wave.row[thread] != nullptr) {
      int const rank = args.owners.rank_of(expert);
      noted = slot_expert_word(expert, bays.number[rank]);
      bay_part<std::int32_t>(bays, rank, args.at.source_token)[row_in_bay(args, rank, expert, position)] =
          static_cast<std::int32_t>(wave.first + slot_of_token(args, thread).token);
    }
    own_part<std::int32_t>(args, args.at.positions)[at] = position;
    own_part<std::int32_t>(args, args.at.slot_expert)[at] = noted;
  }
  if (args.rank_major) send_topk(args, wave, bays);
}

}  // namespace switchyard::cuda
