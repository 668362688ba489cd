// Low-latency dispatch: how many rows go where. Each slot belongs to a stream: its expert (expert_major) or its
// expert's rank (rank_major). A token has one row in a rank's stream, however many of its slots belong to it, and
// one for each slot in an expert's stream. That is seldom more than one: then slots are counted one by one.
#pragma once

#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/low_latency/kernels/tokens.cuh"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

// Tokens are counted in batches. Each stream has a bit for each token of a batch, which says that it has a row
// there.
inline constexpr int batch_tokens = 128;

__device__ inline int num_streams(SlotArgs const& args) {
  return args.rank_major ? args.peers.num_ranks : args.experts.num_experts();
}

__device__ inline int stream_of(SlotArgs const& args, int expert) {
  return expert < 0 || !args.rank_major ? expert : args.owners.rank_of(expert);
}

__device__ inline std::uint32_t rows_of_batch(uint4 const& bits) {
  return __popc(bits.x) + __popc(bits.y) + __popc(bits.z) + __popc(bits.w);
}

// Rows of the tokens of the batch that come before `token`.
__device__ inline std::uint32_t rows_before(uint4 const& bits, int token) {
  // A shift of 32 or more gives 0; then all bits are set.
  auto const below = [token](int first) {
    return token <= first ? 0U : ~(token - first >= 32 ? 0U : ~0U << (token - first));
  };
  return __popc(bits.x & below(0)) + __popc(bits.y & below(32)) + __popc(bits.z & below(64)) +
         __popc(bits.w & below(96));
}

// The host throws for it in a later call. Relaxed: the store pairs with HostMailbox::take_bad_slot(), and nothing
// else is read because of it.
__device__ inline void note_bad_id(SlotDispatchArgs const& args, std::int64_t token, int slot) {
  ptx::store_relaxed(&args.waiting.mailbox->bad_slot,
                     static_cast<std::uint64_t>(IdPlace{token, slot}.number() + 1));
}

// The expert of a slot by its id, or -1 when the slot is not used.
__device__ inline int checked_expert(SlotDispatchArgs const& args, std::int64_t id, std::int64_t token, int slot) {
  if (id >= 0 && id < args.experts.num_experts()) return static_cast<int>(id);
  if (id != -1) note_bad_id(args, token, slot);
  return -1;
}

// All threads of a block call this. Loads the id of this thread's slot of `tokens` tokens from `first` on.
__device__ inline std::int64_t load_own_id(SlotDispatchArgs const& args, std::int64_t first, std::int64_t tokens) {
  SlotOfToken const own = slot_of_token(args, static_cast<int>(threadIdx.x));
  return own.token < tokens ? id_at(args.ids, first + own.token, own.slot) : -1;
}

__device__ inline std::int64_t load_own_id_of_batch(SlotDispatchArgs const& args, std::int64_t batch) {
  return load_own_id(args, batch * batch_tokens,
                     min(std::int64_t{batch_tokens}, args.tokens - batch * batch_tokens));
}

// Arrays in shared memory, by stream.
struct StreamRows {
  uint4* bits;            // of the batch that was marked last
  std::uint32_t* total;   // rows of all tokens; not used when there is only one batch, without repeats
  std::uint32_t* before;  // rows of the batches before the one that is sent from; not used when there is only one
  int* failed;            // 1: a thread of the block has found that the call fails
  int* repeats;           // expert_major: 1: some token has an expert in several slots; known when all is marked
  bool one_batch;
  bool repeated;  // what `repeats` says, once it is known

  // When all is counted.
  [[nodiscard]] __device__ std::uint32_t total_of(int stream) const {
    return one_batch && !repeated ? rows_of_batch(bits[stream]) : total[stream];
  }
  // Rows of all tokens before `token`, which is one of the batch that was marked last.
  [[nodiscard]] __device__ std::uint32_t before_of(int stream, int token) const {
    return (one_batch ? 0 : before[stream]) + rows_before(bits[stream], token);
  }
};

// All threads of a block call this, and a barrier follows.
__device__ inline void clear_bits(SlotArgs const& args, StreamRows const& rows) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_streams(args); i += slot_threads)
    rows.bits[i] = make_uint4(0, 0, 0, 0);
}

// All threads of a block call this when the bits are clear, and a barrier follows. `id` is that of this thread's
// slot of the batch.
__device__ inline void mark_batch(SlotDispatchArgs const& args, StreamRows const& rows, std::int64_t batch,
                                  std::int64_t id) {
  int const thread = static_cast<int>(threadIdx.x);
  std::int64_t const first = batch * batch_tokens;
  auto const slots = static_cast<int>(min(std::int64_t{batch_tokens}, args.tokens - first)) * args.top_k;
#pragma unroll 1
  for (int i = thread; i < slots; i += slot_threads) {
    SlotOfToken const at = slot_of_token(args, i);
    if (i != thread) id = id_at(args.ids, first + at.token, at.slot);
    int const stream = stream_of(args, checked_expert(args, id, first + at.token, at.slot));
    if (stream < 0) continue;
    std::uint32_t const bit = 1U << (at.token % 32);
    auto const before = atomicOr(reinterpret_cast<std::uint32_t*>(rows.bits + stream) + at.token / 32, bit);
    if ((before & bit) != 0 && !args.rank_major) *rows.repeats = 1;  // read after the barrier that follows
  }
}

// All threads of a block call this. Marks another batch.
__device__ inline void switch_to_batch(SlotDispatchArgs const& args, StreamRows const& rows, std::int64_t batch) {
  __syncthreads();  // no thread reads the old bits any more
  clear_bits(args, rows);
  __syncthreads();
  mark_batch(args, rows, batch, load_own_id_of_batch(args, batch));
  __syncthreads();
}

// All threads of a block call this when the first batch is marked and there are more. Counts all batches, and marks
// that of the block's own tokens last.
__device__ inline void count_batches(SlotDispatchArgs const& args, std::int64_t own_batch, StreamRows const& rows) {
  std::int64_t const batches = (args.tokens + batch_tokens - 1) / batch_tokens;
#pragma unroll 1
  for (std::int64_t batch = 0; batch < batches; ++batch) {
    if (batch > 0) switch_to_batch(args, rows, batch);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < num_streams(args); i += slot_threads) {
      std::uint32_t const count = rows_of_batch(rows.bits[i]);
      rows.total[i] = (batch > 0 ? rows.total[i] : 0) + count;
      rows.before[i] = (batch > 0 ? rows.before[i] : 0) + (batch < own_batch ? count : 0);
    }
  }
  switch_to_batch(args, rows, own_batch);
}

// All threads of a block call this when tokens have an expert in several slots: a row for each slot, as far as
// there is room. All ranks together have room for max_tokens of an expert.
static __device__ __noinline__ void count_repeated(SlotDispatchArgs const& args, std::uint32_t* total) {
  int const experts = args.experts.num_experts();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < experts; i += slot_threads) total[i] = 0;
  __syncthreads();
#pragma unroll 1
  for (std::int64_t token = threadIdx.x; token < args.tokens; token += slot_threads) {
#pragma unroll 1
    for (int slot = 0; slot < args.top_k; ++slot) {
      std::int64_t const id = id_at(args.ids, token, slot);
      if (id >= 0 && id < experts) atomicAdd(total + id, 1U);  // read after the barrier
    }
  }
  __syncthreads();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < experts; i += slot_threads)
    total[i] = min(total[i], static_cast<std::uint32_t>(args.max_tokens));
  __syncthreads();
}

// The number of a slot's row within the rows of its expert, when tokens have an expert in several slots. -1: there
// is no room; the slot is then not used, and the host throws for it in a later call.
static __device__ __noinline__ int number_repeated(SlotDispatchArgs const& args, int expert, std::int64_t token,
                                                   int slot) {
  int number = 0;
#pragma unroll 1
  for (std::int64_t earlier = 0; earlier <= token; ++earlier) {
    int const slots = earlier < token ? args.top_k : slot;
#pragma unroll 1
    for (int i = 0; i < slots; ++i) number += id_at(args.ids, earlier, i) == expert ? 1 : 0;
  }
  if (number < args.max_tokens) return number;
  note_bad_id(args, token, slot);
  return -1;
}

// All threads of a block call this when the first batch is marked. Counts what each stream has in all batches;
// afterwards that of the block's own tokens is marked.
__device__ inline void count_all(SlotDispatchArgs const& args, std::int64_t own_batch, StreamRows& rows) {
  if (!rows.one_batch) count_batches(args, own_batch, rows);
  rows.repeated = *rows.repeats != 0;
  if (rows.repeated) count_repeated(args, rows.total);
}

// All threads of a block call this. Moves on from the batch that was marked last to the next one.
__device__ inline void advance_to_batch(SlotDispatchArgs const& args, StreamRows const& rows, std::int64_t batch) {
  __syncthreads();
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < num_streams(args); i += slot_threads)
    rows.before[i] += rows_of_batch(rows.bits[i]);
  switch_to_batch(args, rows, batch);
}

}  // namespace switchyard::cuda
