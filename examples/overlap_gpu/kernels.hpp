// The example's kernels; each call queues one on a stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace example {

inline constexpr int tile = 128;  // rows and columns of y that a block computes at a time

// By the clock that all streams (and processes) of one GPU share, in nanoseconds.
struct Span {
  unsigned long long begin = ~0ULL;
  unsigned long long end = 0;
};

// y = x w^T, as a linear layer has it; row-major, bf16 in and f32 out. tokens and width: multiples of `tile`.
struct Product {
  std::uint16_t const* x = nullptr;  // [tokens, inner]
  std::uint16_t const* w = nullptr;  // [width, inner]
  float* y = nullptr;                // [tokens, width]
  int tokens = 0;
  int inner = 0;
  int width = 0;
};

// An error when this build has no kernels for the current GPU. Kernels are loaded before they are first queued:
// that may wait for all work on the GPU.
cudaError_t load_kernels();

// to[row, column] = value_at(row_key(seed, row), column), as bf16.
struct Filling {
  std::uint16_t* to = nullptr;
  int rows = 0;
  int columns = 0;
  std::uint32_t seed = 0;
};
cudaError_t fill(Filling const& filling, cudaStream_t stream);

// Takes `blocks` SMs at most, whatever the size. `span`: of GPU memory; from its first block's start to its last
// block's end.
cudaError_t multiply(Product const& product, int blocks, Span* span, cudaStream_t stream);

// *at = now, once what is queued before is done.
cudaError_t stamp(unsigned long long* at, cudaStream_t stream);

}  // namespace example
