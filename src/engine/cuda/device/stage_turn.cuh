// The stages of a ring in shared memory, one after the other.
#pragma once

#include <cstdint>

namespace switchyard::cuda {

// A stage, and the parity of its barrier's phase. It counts on, since a division takes long on a GPU.
struct StageTurn {
  int stage = 0;
  std::uint32_t parity = 0;

  __device__ void advance(int stages) {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1U;
  }
};

}  // namespace switchyard::cuda
