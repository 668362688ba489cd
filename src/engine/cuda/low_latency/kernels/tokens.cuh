// Low-latency mode: how blocks share tokens, and how the threads of a block share the tokens' top-k slots.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/low_latency/args.hpp"

namespace switchyard::cuda {

inline constexpr int slot_threads = 512;  // of a block; also the slots that a block handles at a time
inline constexpr int slot_warps = slot_threads / 32;

__device__ inline int warp_of_block() {
  return static_cast<int>(threadIdx.x / 32);
}
__device__ inline int lane_of_warp() {
  return static_cast<int>(threadIdx.x % 32);
}

// The tokens of this block.
__device__ inline TokenRange own_tokens(SlotArgs const& args) {
  std::int64_t const each = (args.tokens + gridDim.x - 1) / gridDim.x;
  std::int64_t const begin = min(args.tokens, each * blockIdx.x);
  return {begin, min(args.tokens, begin + each)};
}

struct SlotOfToken {
  int token;
  int slot;
};

// The token and the slot of the `index`-th of the slots that are handled together.
__device__ inline SlotOfToken slot_of_token(SlotArgs const& args, int index) {
  auto const token = static_cast<int>(args.by_top_k.of(static_cast<std::uint32_t>(index)));
  return {.token = token, .slot = index - token * args.top_k};
}

// How many tokens a block handles at a time: its threads have a slot each.
__device__ inline int tokens_at_once(SlotArgs const& args) {
  return static_cast<int>(args.by_top_k.of(slot_threads));
}

}  // namespace switchyard::cuda
