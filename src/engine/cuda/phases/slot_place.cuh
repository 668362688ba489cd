// Low-latency dispatch: where the rows of a wave of tokens go, and all that travels beside them but scales.
#pragma once

#include "engine/cuda/phases/slot_claim.cuh"

namespace switchyard::cuda {

// In shared memory: the slots of a wave of tokens.
struct Wave {
  int* stream;
  int* row;  // in the rank's frame; -1: nothing is sent
  std::int16_t* rank;
  std::int64_t first;  // token
  int tokens;
};

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
#pragma unroll 4
  for (int slot = 0; slot < args.top_k; ++slot) {
    std::int64_t const local = id_at(args.ids, place.token, slot) - first;
    bool const ours = local >= 0 && local < count;
    ids[slot] = ours ? static_cast<std::int32_t>(local) : -1;
    if (args.weights.data == nullptr) continue;
    weights[slot] =
        ours ? args.weights.data[place.token * args.weights.row_stride + slot * args.weights.column_stride] : 0.0F;
  }
}

// Rows of the stream that earlier tokens of the wave have.
__device__ inline int earlier_in_wave(int const* streams, int top_k, int token, int stream) {
  int count = 0;
  for (int before = 0; before < token; ++before) {
    for (int slot = 0; slot < top_k; ++slot) {
      if (streams[before * top_k + slot] != stream) continue;
      ++count;  // once a token
      break;
    }
  }
  return count;
}

// By all threads of a block.
__device__ inline void place_wave(SlotDispatchArgs const& args, Wave const& wave, StreamCounts const& counts,
                                  std::uint64_t epoch, std::uint64_t masked) {
  int const thread = static_cast<int>(threadIdx.x);
  int const local = thread / args.top_k;
  int const slot = thread % args.top_k;
  bool const there = local < wave.tokens;
  int const expert = there ? expert_of_slot(args, wave.first + local, slot) : -1;
  int const stream = stream_of(args, expert);
  __syncthreads();  // the wave before is through
  wave.stream[thread] = stream;
  __syncthreads();
  SlotPlace place{
      .token = wave.first + local, .slot = slot, .expert = expert, .rank = 0, .row = -1, .position = -1};
  bool first = false;
  if (stream >= 0) {
    first = first_alike(wave.stream, local * args.top_k, slot) == slot;
    place.rank = args.experts.rank_of(expert);
    int const number =
        static_cast<int>(counts.before[stream]) + earlier_in_wave(wave.stream, args.top_k, local, stream);
    if (args.rank_major) {
      place.position = first && (masked >> place.rank & 1) == 0 ? number : -1;
      place.row = args.peers.rank * static_cast<std::int32_t>(args.max_tokens) + place.position;
    } else {
      std::uint32_t const base = await_base(args, epoch, expert);
      place.position = base == no_base ? -1 : static_cast<std::int32_t>(base) + number;
      place.row = (expert - args.experts.first(place.rank)) * static_cast<std::int32_t>(args.rows_of_expert()) +
                  place.position;
    }
  }
  if (there) note_place(args, place);
  bool const sent = first && place.position >= 0;
  wave.row[thread] = sent ? place.row : -1;
  wave.rank[thread] = static_cast<std::int16_t>(place.rank);
  if (sent) {
    frame_part<std::int32_t>(args, place.rank, args.at.source_token)[place.row] =
        static_cast<std::int32_t>(place.token);
    if (args.rank_major) send_topk(args, place);
  }
  __syncthreads();
  if (stream >= 0 && first) atomicAdd(&counts.before[stream], 1U);  // for the next wave
}

}  // namespace switchyard::cuda
