// How a kernel's blocks share the tokens of a call.
#pragma once

#include <cstdint>

namespace switchyard::cuda {

struct TokenRange {
  std::int64_t begin;
  std::int64_t end;
};

// The tokens of this block when tokens are dealt to the blocks of the grid in turn.
struct BlockTokens {
  std::int64_t count;

  // Tokens are numbered in 31 bits. In 32 bits a division takes a few instructions, in 64 a hundred.
  __device__ explicit BlockTokens(std::int64_t num_tokens)
      : count(num_tokens > blockIdx.x
                  ? (static_cast<std::uint32_t>(num_tokens) - blockIdx.x + gridDim.x - 1) / gridDim.x
                  : 0) {}
  [[nodiscard]] __device__ static std::int64_t token(std::int64_t index) {
    return blockIdx.x + index * static_cast<std::int64_t>(gridDim.x);
  }
};

}  // namespace switchyard::cuda
