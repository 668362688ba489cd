// Low-latency dispatch: where the rows of a wave of tokens go, and all that travels beside them but scales.
#pragma once

#include "engine/cuda/phases/slot_claim.cuh"

namespace switchyard::cuda {

// In shared memory: the slots of a wave of tokens, one a thread.
struct Wave {
  int* expert;  // -1: not used
  int* stream;
  int* position;       // within the expert, or within this source's slots; -1: nothing is sent
  std::byte** row;     // where the token's row goes; null: nowhere
  std::byte** scales;  // where its first scale goes
  FirstSlots at_first;
  std::byte* buffer;      // rows of the wave's tokens, for the copy engine
  std::uint64_t* loaded;  // barrier of loads into it
  std::uint32_t parity;   // likewise
  std::int64_t first;     // token
  int tokens;
};

// -1: not used.
__device__ inline int expert_of_slot(SlotDispatchArgs const& args, FirstSlots const& first, std::int64_t token,
                                     int slot) {
  if (token < first.tokens) return first.expert[token * args.top_k + slot];
  return checked_slot(args, id_at(args.ids, token, slot), token, slot);
}

// In the frame of the rank that has the expert.
__device__ inline std::int32_t row_in_frame(SlotArgs const& args, int rank, int expert, std::int32_t position) {
  if (args.rank_major) return args.peers.rank * static_cast<std::int32_t>(args.max_tokens) + position;
  return (expert - args.experts.first(rank)) * static_cast<std::int32_t>(args.rows_of_expert()) + position;
}

// Bytes from one scale of a row to the next.
__device__ inline std::int64_t scale_step(SlotDispatchArgs const& args) {
  return args.scales_by_column ? args.rows_of_expert() * 4 : 4;
}

struct SlotPlace {
  int rank;
  int local;         // expert
  std::int32_t row;  // in the rank's frame
  std::int32_t position;
};

__device__ inline std::byte* scales_of(SlotDispatchArgs const& args, SlotPlace const& place) {
  std::int64_t const at = args.scales_by_column ? place.local * args.rows_of_expert() * args.scale_bytes +
                                                      place.position * std::int64_t{4}
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

struct PlaceFacts {
  std::uint64_t epoch;
  std::uint64_t masked;
  int* failed;
};

// `number`: of the row within its stream. -1: nothing can be sent there.
__device__ inline std::int32_t position_of(SlotDispatchArgs const& args, int expert, int number,
                                           PlaceFacts const& facts) {
  if (args.rank_major) return (facts.masked >> args.experts.rank_of(expert) & 1) == 0 ? number : -1;
  std::uint32_t const base = await_base(args, facts.epoch, expert, facts.failed);
  return base == no_base ? -1 : static_cast<std::int32_t>(base) + number;
}

// By all threads of a block: rows can go afterwards.
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
  bool first = false;
  std::int32_t position = -1;
  if (stream >= 0) {
    first = first_alike(wave.stream, local * args.top_k, slot) == slot;
    int const number =
        static_cast<int>(counts.before[stream]) + earlier_in_wave(wave.stream, args.top_k, local, stream);
    position = position_of(args, expert, number, {.epoch = epoch, .masked = masked, .failed = counts.failed});
  }
  std::byte* row = nullptr;
  std::byte* scales = nullptr;
  if (first && position >= 0) {
    int const rank = args.experts.rank_of(expert);
    SlotPlace const place{.rank = rank,
                          .local = expert - args.experts.first(rank),
                          .row = row_in_frame(args, rank, expert, position),
                          .position = position};
    row = frame_part<std::byte>(args, rank, args.at.x) + static_cast<std::int64_t>(place.row) * args.row_bytes;
    scales = scales_of(args, place);
  }
  wave.expert[thread] = expert;
  wave.row[thread] = row;
  wave.scales[thread] = scales;
  // rank_major: a combine reads one row a rank.
  wave.position[thread] = first || !args.rank_major ? position : -1;
  __syncthreads();
  if (stream >= 0 && first) atomicAdd(&counts.before[stream], 1U);  // for the next wave
}

// rank_major: what the receivers' experts need to know of a wave's tokens. A thread has a slot of a slot.
__device__ inline void send_topk(SlotDispatchArgs const& args, Wave const& wave) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < wave.tokens * args.top_k * args.top_k; i += slot_threads) {
    int const at = i / args.top_k;
    if (wave.row[at] == nullptr) continue;
    int const slot = i % args.top_k;
    std::int64_t const token = at / args.top_k;
    int const rank = args.experts.rank_of(wave.expert[at]);
    int const local = wave.expert[token * args.top_k + slot] - args.experts.first(rank);
    bool const ours = local >= 0 && local < args.experts.count(rank);
    std::int64_t const to =
        row_in_frame(args, rank, wave.expert[at], wave.position[at]) * static_cast<std::int64_t>(args.top_k) + slot;
    frame_part<std::int32_t>(args, rank, args.at.topk_idx)[to] = ours ? local : -1;
    if (args.weights.data == nullptr) continue;
    std::int64_t const from = (wave.first + token) * args.weights.row_stride + slot * args.weights.column_stride;
    frame_part<float>(args, rank, args.at.topk_weights)[to] = ours ? args.weights.data[from] : 0.0F;
  }
}

// By all threads of a block, after place_wave(): all that goes along with rows but scales, and what the combine
// needs.
__device__ inline void send_facts(SlotDispatchArgs const& args, Wave const& wave) {
  int const thread = static_cast<int>(threadIdx.x);
  if (thread < wave.tokens * args.top_k) {
    std::int64_t const at = wave.first * args.top_k + thread;
    int const expert = wave.expert[thread];
    std::int32_t const position = wave.position[thread];
    frame_part<std::int32_t>(args, args.peers.rank, args.at.positions)[at] = position;
    frame_part<std::int32_t>(args, args.peers.rank, args.at.slot_expert)[at] = expert;
    if (wave.row[thread] != nullptr) {
      int const rank = args.experts.rank_of(expert);
      frame_part<std::int32_t>(args, rank, args.at.source_token)[row_in_frame(args, rank, expert, position)] =
          static_cast<std::int32_t>(wave.first + thread / args.top_k);
    }
  }
  if (args.rank_major) send_topk(args, wave);
}

}  // namespace switchyard::cuda
