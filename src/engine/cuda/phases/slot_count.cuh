// Low-latency dispatch: which row of which rank each slot of this block's tokens goes to. A slot belongs to a
// stream: its expert (expert_major) or its expert's rank (rank_major). A token has one row in a stream, however
// many of its slots belong to it.
#pragma once

#include "engine/cuda/comm/frames.cuh"
#include "engine/cuda/phases/ids.cuh"

namespace switchyard::cuda {

inline constexpr int slot_threads = 1024;  // of a block, and slots looked at together
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

// In shared memory, by stream.
struct StreamCounts {
  std::uint32_t* total;   // rows of all tokens
  std::uint32_t* before;  // rows of tokens before those that are looked at
  int* failed;            // 1: a thread of the block found that the call fails
};

__device__ inline int num_streams(SlotArgs const& args) {
  return args.rank_major ? args.peers.world : args.experts.num_experts();
}

__device__ inline void note_bad_id(SlotDispatchArgs const& args, std::int64_t token, int slot) {
  // Read by the host, which throws and sets it back.
  ptx::store_relaxed(&args.waiting.mailbox->bad_slot, static_cast<std::uint64_t>(token * 64 + slot + 1));
}

__device__ inline int stream_of(SlotArgs const& args, int expert) {
  return expert < 0 || !args.rank_major ? expert : args.experts.rank_of(expert);
}

// The first slot of the same token and stream as `slot`; `streams` holds those of the token from `first` on.
__device__ inline int first_alike(int const* streams, int first, int slot) {
  int const stream = streams[first + slot];
  for (int before = 0; before < slot; ++before) {
    if (streams[first + before] == stream) return before;
  }
  return slot;
}

// Tokens whose slots are looked at together.
__device__ inline int tokens_at_once(SlotArgs const& args) {
  return slot_threads / args.top_k;
}

// The slots that are looked at first, in shared memory: an expert each, -1: not used. Mostly they are all there
// are.
struct FirstSlots {
  int* expert;
  std::int64_t tokens;
};

// By all threads of a block: asks for the ids of the first slots; expert_of_first() looks at what came.
__device__ inline std::int64_t ask_for_ids(SlotDispatchArgs const& args) {
  int const local = static_cast<int>(threadIdx.x) / args.top_k;
  bool const there = local < tokens_at_once(args) && local < args.tokens;
  return there ? id_at(args.ids, local, static_cast<int>(threadIdx.x) % args.top_k) : -1;
}

__device__ inline int checked_slot(SlotDispatchArgs const& args, std::int64_t id, std::int64_t token, int slot) {
  if (id >= 0 && id < args.experts.num_experts()) return static_cast<int>(id);
  if (id != -1) note_bad_id(args, token, slot);
  return -1;
}

// By all threads of a block; `first_id`: of ask_for_ids(). `streams`: room for a slot a thread.
__device__ inline void count_streams(SlotDispatchArgs const& args, std::int64_t own_begin,
                                     StreamCounts const& counts, int* streams, FirstSlots const& first,
                                     std::int64_t first_id) {
  int const thread = static_cast<int>(threadIdx.x);
#pragma unroll 1
  for (int i = thread; i < num_streams(args); i += slot_threads) counts.total[i] = counts.before[i] = 0;
  int const at_once = tokens_at_once(args);
  int const local = thread / args.top_k;
  int const slot = thread % args.top_k;
#pragma unroll 1
  for (std::int64_t begin = 0; begin < args.tokens; begin += at_once) {
    std::int64_t const token = begin + local;
    bool const there = local < at_once && token < args.tokens;
    std::int64_t const id = begin == 0 ? first_id : there ? id_at(args.ids, token, slot) : -1;
    int const expert = checked_slot(args, id, token, slot);
    int const stream = stream_of(args, expert);
    if (begin > 0) __syncthreads();
    if (begin == 0) first.expert[thread] = expert;
    streams[thread] = stream;
    __syncthreads();
    if (stream < 0 || first_alike(streams, local * args.top_k, slot) != slot) continue;
    atomicAdd(&counts.total[stream], 1U);
    if (token < own_begin) atomicAdd(&counts.before[stream], 1U);
  }
  __syncthreads();
}

}  // namespace switchyard::cuda
