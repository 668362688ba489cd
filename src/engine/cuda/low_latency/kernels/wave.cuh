// Low-latency dispatch: a wave, which is the tokens that a block sends at a time.
#pragma once

#include "engine/cuda/low_latency/kernels/tokens.cuh"

namespace switchyard::cuda {

// Its arrays lie in shared memory. They have an element for each slot of the wave's tokens, and each slot has a
// thread.
struct Wave {
  int* expert;  // -1: not used
  int* stream;
  int* position;          // within the expert, or within this source's slots; -1: nothing is sent
  std::byte** row;        // where the token's row goes; null: nowhere
  std::byte** scales;     // where its first scale goes
  std::byte* buffer;      // rows of the wave's tokens, for the copy engine
  std::uint64_t* loaded;  // barrier of the loads into the buffer
  std::uint32_t parity;   // of that barrier
  std::int64_t first;     // token
  int tokens;
};

// Calls visit(slot) for each slot of a token of the wave to which its row goes.
template <typename Visit>
__device__ inline void for_slots(SlotDispatchArgs const& args, Wave const& wave, int token, Visit const& visit) {
#pragma unroll 1
  for (int slot = token * args.top_k; slot < (token + 1) * args.top_k; ++slot) {
    if (wave.row[slot] != nullptr) visit(slot);
  }
}

// Bytes from one scale of a row to the next.
__device__ inline std::int64_t scale_step(SlotDispatchArgs const& args) {
  return args.scales_by_column ? args.rows_of_expert() * 4 : 4;
}

}  // namespace switchyard::cuda
