// Low-latency dispatch: how many rows go where. A slot belongs to a stream: its expert (expert_major) or its
// expert's rank (rank_major). A token has one row in a stream, however many of its slots belong to it.
#pragma once

#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/low_latency/kernels/frames.cuh"

namespace switchyard::cuda {

inline constexpr int slot_threads = 512;  // of a block, and slots looked at together
inline constexpr std::uint32_t no_base = ~0U;

struct TokenRange {
  std::int64_t begin;
  std::int64_t end;
};

// Of this block.
__device__ inline TokenRange own_tokens(SlotArgs const& args) {
  std::int64_t const each = (args.tokens + gridDim.x - 1) / gridDim.x;
  std::int64_t const begin = min(args.tokens, each * blockIdx.x);
  return {begin, min(args.tokens, begin + each)};
}

// Tokens are looked at in batches. For each stream there is a bit for each token of a batch: it has a row there.
inline constexpr int batch_tokens = 128;

__device__ inline int num_streams(SlotArgs const& args) {
  return args.rank_major ? args.peers.num_ranks : args.experts.num_experts();
}

__device__ inline std::uint32_t rows_of_batch(uint4 const& bits) {
  return __popc(bits.x) + __popc(bits.y) + __popc(bits.z) + __popc(bits.w);
}

// Of tokens before `token`, of the batch.
__device__ inline std::uint32_t rows_before(uint4 const& bits, int token) {
  // Shifts of 32 and more give 0, and all bits are set then.
  auto const below = [token](int first) {
    return token <= first ? 0U : ~(token - first >= 32 ? 0U : ~0U << (token - first));
  };
  return __popc(bits.x & below(0)) + __popc(bits.y & below(32)) + __popc(bits.z & below(64)) +
         __popc(bits.w & below(96));
}

__device__ inline void note_bad_id(SlotDispatchArgs const& args, std::int64_t token, int slot) {
  // Read by the host, which throws and sets it back.
  ptx::store_relaxed(&args.waiting.mailbox->bad_slot, static_cast<std::uint64_t>(token * 64 + slot + 1));
}

__device__ inline int stream_of(SlotArgs const& args, int expert) {
  return expert < 0 || !args.rank_major ? expert : args.owners.rank_of(expert);
}

// Slots that are looked at together, and a thread's place among them.
struct SlotOfToken {
  int token;
  int slot;
};

__device__ inline SlotOfToken slot_of_token(SlotArgs const& args, int index) {
  auto const token = static_cast<int>(args.by_top_k.of(static_cast<std::uint32_t>(index)));
  return {.token = token, .slot = index - token * args.top_k};
}

// Tokens whose slots are sent together.
__device__ inline int tokens_at_once(SlotArgs const& args) {
  return static_cast<int>(args.by_top_k.of(slot_threads));
}

// By all threads of a block: asks for the id of this thread's slot of `tokens` tokens from `first` on.
__device__ inline std::int64_t ask_for_id(SlotDispatchArgs const& args, std::int64_t first, std::int64_t tokens) {
  SlotOfToken const own = slot_of_token(args, static_cast<int>(threadIdx.x));
  return own.token < tokens ? id_at(args.ids, first + own.token, own.slot) : -1;
}

// -1: not used.
__device__ inline int checked_slot(SlotDispatchArgs const& args, std::int64_t id, std::int64_t token, int slot) {
  if (id >= 0 && id < args.experts.num_experts()) return static_cast<int>(id);
  if (id != -1) note_bad_id(args, token, slot);
  return -1;
}

// In shared memory, by stream.
struct StreamRows {
  uint4* bits;            // of the batch that was looked at last
  std::uint32_t* total;   // rows of all tokens; not used when there is one batch only
  std::uint32_t* before;  // rows of the batches before the one that is sent from; likewise
  int* failed;            // 1: a thread of the block found that the call fails
  bool one_batch;

  [[nodiscard]] __device__ std::uint32_t total_of(int stream) const {
    return one_batch ? rows_of_batch(bits[stream]) : total[stream];
  }
  // Of earlier tokens than `token`, of the batch that was looked at last.
  [[nodiscard]] __device__ std::uint32_t before_of(int stream, int token) const {
    return (one_batch ? 0 : before[stream]) + rows_before(bits[stream], token);
  }
};

// By all threads of a block; a barrier follows.
__device__ inline void clear_bits(SlotArgs const& args, StreamRows const& rows) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_streams(args); i += slot_threads)
    rows.bits[i] = make_uint4(0, 0, 0, 0);
}

// By all threads of a block, when bits are clear; a barrier follows. `id`: of this thread's slot of the batch.
__device__ inline void look_at_batch(SlotDispatchArgs const& args, StreamRows const& rows, std::int64_t batch,
                                     std::int64_t id) {
  int const thread = static_cast<int>(threadIdx.x);
  std::int64_t const first = batch * batch_tokens;
  auto const slots = static_cast<int>(min(std::int64_t{batch_tokens}, args.tokens - first)) * args.top_k;
#pragma unroll 1
  for (int i = thread; i < slots; i += slot_threads) {
    SlotOfToken const at = slot_of_token(args, i);
    if (i != thread) id = id_at(args.ids, first + at.token, at.slot);
    int const stream = stream_of(args, checked_slot(args, id, first + at.token, at.slot));
    if (stream >= 0)
      atomicOr(reinterpret_cast<std::uint32_t*>(rows.bits + stream) + at.token / 32, 1U << (at.token % 32));
  }
}

__device__ inline std::int64_t ask_for_id_of_batch(SlotDispatchArgs const& args, std::int64_t batch) {
  return ask_for_id(args, batch * batch_tokens,
                    min(std::int64_t{batch_tokens}, args.tokens - batch * batch_tokens));
}

// By all threads of a block: looks at another batch.
__device__ inline void go_to_batch(SlotDispatchArgs const& args, StreamRows const& rows, std::int64_t batch) {
  __syncthreads();  // nobody looks at the bits there are any more
  clear_bits(args, rows);
  __syncthreads();
  look_at_batch(args, rows, batch, ask_for_id_of_batch(args, batch));
  __syncthreads();
}

// By all threads of a block, when the first batch was looked at and there are more: counts all of them, and looks
// at that of the own tokens last.
__device__ inline void count_batches(SlotDispatchArgs const& args, std::int64_t own_batch, StreamRows const& rows) {
  std::int64_t const batches = (args.tokens + batch_tokens - 1) / batch_tokens;
#pragma unroll 1
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    if (batch > 0) go_to_batch(args, rows, batch);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < num_streams(args); i += slot_threads) {
      std::uint32_t const count = rows_of_batch(rows.bits[i]);
      rows.total[i] = (batch > 0 ? rows.total[i] : 0) + count;
      rows.before[i] = (batch > 0 ? rows.before[i] : 0) + (batch < own_batch ? count : 0);
    }
  }
  go_to_batch(args, rows, own_batch);
}

// By all threads of a block: goes on to the next batch.
__device__ inline void next_batch(SlotDispatchArgs const& args, StreamRows const& rows, std::int64_t batch) {
  __syncthreads();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_streams(args); i += slot_threads)
    rows.before[i] += rows_of_batch(rows.bits[i]);
  go_to_batch(args, rows, batch);
}

}  // namespace switchyard::cuda
