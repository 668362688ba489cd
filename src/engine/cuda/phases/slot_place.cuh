// Low-latency dispatch: where the rows of a wave of tokens go, and all that travels beside them but scales.
#pragma once

#include "engine/cuda/phases/slot_claim.cuh"

namespace switchyard::cuda {

// In shared memory: the slots of a wave of tokens.
struct Wave {
  int* stream;
  std::byte** row;     // where the token's row goes; null: nothing is sent
  std::byte** scales;  // where its first scale goes
  FirstSlots at_first;
  std::int64_t first;  // token
  int tokens;
};

// -1: not used.
__device__ inline int expert_of_slot(SlotDispatchArgs const& args, FirstSlots const& first, std::int64_t token,
                                     int slot) {
  if (token < first.tokens) return first.expert[token * args.top_k + slot];
  return checked_slot(args, id_at(args.ids, token, slot), token, slot);
}

struct SlotPlace {
  std::int64_t token;
  int slot;
  int expert;
  int rank;
  std::int32_t row;       // in the rank's frame
  std::int32_t position;  // within the expert, or within this source's slots
};

__device__ inline void note_place(SlotDispatchArgs const& args, SlotPlace const& place) {
  std::int64_t const at = place.token * args.top_k + place.slot;
  frame_part<std::int32_t>(args, args.peers.rank, args.at.positions)[at] = place.position;
  frame_part<std::int32_t>(args, args.peers.rank, args.at.slot_expert)[at] = place.expert;
}

// rank_major: what the receiver's experts need to know of the token.
__device__ inline void send_topk(SlotDispatchArgs const& args, SlotPlace const& place) {
  int const first = args.experts.first(place.rank);
  int const count = args.experts.count(place.rank);
  std::int64_t const to = static_cast<std::int64_t>(place.row) * args.top_k;
  auto* const ids = frame_part<std::int32_t>(args, place.rank, args.at.topk_idx) + to;
  auto* const weights = frame_part<float>(args, place.rank, args.at.topk_weights) + to;
#pragma unroll 1
  for (int begin = 0; begin < args.top_k; begin += 8) {
    std::int64_t all[8];
    load_ids<8>(args.ids, place.token, begin, args.top_k, all);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (begin + i >= args.top_k) break;
      std::int64_t const local = all[i] - first;
      bool const ours = local >= 0 && local < count;
      ids[begin + i] = ours ? static_cast<std::int32_t>(local) : -1;
      if (args.weights.data == nullptr) continue;
      std::int64_t const at = place.token * args.weights.row_stride + (begin + i) * args.weights.column_stride;
      weights[begin + i] = ours ? args.weights.data[at] : 0.0F;
    }
  }
}

// Bytes from one scale of a row to the next.
__device__ inline std::int64_t scale_step(SlotDispatchArgs const& args) {
  return args.scales_by_column ? args.rows_of_expert() * 4 : 4;
}

__device__ inline std::byte* scales_of(SlotDispatchArgs const& args, SlotPlace const& place) {
  std::int64_t const local = place.expert - args.experts.first(place.rank);
  std::int64_t const at = args.scales_by_column
                              ? local * args.scale_bytes * args.rows_of_expert() + place.position * std::int64_t{4}
                              : static_cast<std::int64_t>(place.row) * args.scale_bytes;
  return frame_part<std::byte>(args, place.rank, args.at.scales) + at;
}

// Rows of the stream that earlier tokens of the wave have.
__device__ inline int earlier_in_wave(int const* streams, int top_k, int token, int stream) {
  int count = 0;
#pragma unroll 1
  for (int before = 0; before < token; ++before) {
    int found = 0;
#pragma unroll 4
    for (int slot = 0; slot < top_k; ++slot) found |= streams[before * top_k + slot] == stream ? 1 : 0;
    count += found;  // once a token
  }
  return count;
}

// The row of a slot that belongs to a stream; position -1 when nothing can be sent there.
__device__ inline void find_row(SlotDispatchArgs const& args, SlotPlace& place, int number, bool first,
                                std::uint64_t epoch, std::uint64_t masked) {
  place.rank = args.experts.rank_of(place.expert);
  if (args.rank_major) {
    place.position = first && (masked >> place.rank & 1) == 0 ? number : -1;
    place.row = args.peers.rank * static_cast<std::int32_t>(args.max_tokens) + place.position;
    return;
  }
  std::uint32_t const base = await_base(args, epoch, place.expert);
  place.position = base == no_base ? -1 : static_cast<std::int32_t>(base) + number;
  place.row = (place.expert - args.experts.first(place.rank)) * static_cast<std::int32_t>(args.rows_of_expert()) +
              place.position;
}

// By all threads of a block.
__device__ inline void place_wave(SlotDispatchArgs const& args, Wave const& wave, StreamCounts const& counts,
                                  std::uint64_t epoch, std::uint64_t masked) {
  int const thread = static_cast<int>(threadIdx.x);
  int const local = thread / args.top_k;
  int const slot = thread % args.top_k;
  bool const there = local < wave.tokens;
  int const expert = there ? expert_of_slot(args, wave.at_first, wave.first + local, slot) : -1;
  int const stream = stream_of(args, expert);
  __syncthreads();  // the wave before is through
  wave.stream[thread] = stream;
  __syncthreads();
  SlotPlace place{
      .token = wave.first + local, .slot = slot, .expert = expert, .rank = 0, .row = -1, .position = -1};
  bool first = false;
  if (stream >= 0) {
    first = first_alike(wave.stream, local * args.top_k, slot) == slot;
    int const number =
        static_cast<int>(counts.before[stream]) + earlier_in_wave(wave.stream, args.top_k, local, stream);
    find_row(args, place, number, first, epoch, masked);
  }
  bool const sent = first && place.position >= 0;
  wave.row[thread] = sent ? frame_part<std::byte>(args, place.rank, args.at.x) +
                                static_cast<std::int64_t>(place.row) * args.row_bytes
                          : nullptr;
  wave.scales[thread] = sent ? scales_of(args, place) : nullptr;
  __syncthreads();
  // Rows can go; this takes its time beside them.
  if (there) note_place(args, place);
  if (sent) {
    frame_part<std::int32_t>(args, place.rank, args.at.source_token)[place.row] =
        static_cast<std::int32_t>(place.token);
    if (args.rank_major) send_topk(args, place);
  }
  if (stream >= 0 && first) atomicAdd(&counts.before[stream], 1U);  // for the next wave
}

}  // namespace switchyard::cuda
