#include <cuda_pipeline_primitives.h>
#include <mma.h>

#include "inputs.hpp"
#include "kernels.hpp"

namespace example {

namespace {

namespace wmma = nvcuda::wmma;
using Bf16 = __nv_bfloat16;

constexpr int threads = 256;
constexpr int depth = 32;         // of a step along the inner dimension
constexpr int pitch = depth + 8;  // so that the rows of a step start in different banks of shared memory
constexpr int fragment = 16;

// 8 warps share a tile: 2 down, 4 across.
constexpr int warp_rows = tile / 2;
constexpr int warp_columns = tile / 4;
using Sum = wmma::fragment<wmma::accumulator, fragment, fragment, fragment, float>;
struct Sums {
  Sum of[warp_rows / fragment][warp_columns / fragment];
};

struct Step {
  alignas(128) Bf16 x[tile * pitch];
  alignas(128) Bf16 w[tile * pitch];
};

__device__ unsigned long long now() {
  unsigned long long ns = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
  return ns;
}

// Does not wait for the copies.
__device__ void load(Step& to, Bf16 const* x, Bf16 const* w, int inner) {
  constexpr int at_once = 16 / sizeof(Bf16);
  for (int i = static_cast<int>(threadIdx.x) * at_once; i < tile * depth; i += threads * at_once) {
    int const row = i / depth;
    int const column = i % depth;
    std::int64_t const from = static_cast<std::int64_t>(row) * inner + column;
    __pipeline_memcpy_async(&to.x[row * pitch + column], &x[from], 16);
    __pipeline_memcpy_async(&to.w[row * pitch + column], &w[from], 16);
  }
  __pipeline_commit();
}

__device__ void accumulate(Step const& step, Sums& sums) {
  int const warp = static_cast<int>(threadIdx.x) / 32;
  Bf16 const* const x = &step.x[warp / 4 * warp_rows * pitch];
  Bf16 const* const w = &step.w[warp % 4 * warp_columns * pitch];
  for (int k = 0; k < depth; k += fragment) {
    wmma::fragment<wmma::matrix_b, fragment, fragment, fragment, Bf16, wmma::col_major> b[warp_columns / fragment];
    for (int j = 0; j < warp_columns / fragment; ++j)
      wmma::load_matrix_sync(b[j], &w[j * fragment * pitch + k], pitch);
    for (int i = 0; i < warp_rows / fragment; ++i) {
      wmma::fragment<wmma::matrix_a, fragment, fragment, fragment, Bf16, wmma::row_major> a;
      wmma::load_matrix_sync(a, &x[i * fragment * pitch + k], pitch);
      for (int j = 0; j < warp_columns / fragment; ++j) wmma::mma_sync(sums.of[i][j], a, b[j], sums.of[i][j]);
    }
  }
}

__device__ void store(Product const& product, Sums const& sums, int row, int column) {
  int const warp = static_cast<int>(threadIdx.x) / 32;
  std::int64_t const first_row = row + warp / 4 * warp_rows;
  float* const y = product.y + first_row * product.width + column + warp % 4 * warp_columns;
  for (int i = 0; i < warp_rows / fragment; ++i)
    for (int j = 0; j < warp_columns / fragment; ++j)
      wmma::store_matrix_sync(y + static_cast<std::int64_t>(i * fragment) * product.width + j * fragment,
                              sums.of[i][j], static_cast<unsigned>(product.width), wmma::mem_row_major);
}

// Two steps alternate: one is multiplied while the next is on its way.
__device__ void multiply_tile(Product const& product, int row, int column, Step (&steps)[2]) {
  auto const* const x = reinterpret_cast<Bf16 const*>(product.x) + static_cast<std::int64_t>(row) * product.inner;
  auto const* const w =
      reinterpret_cast<Bf16 const*>(product.w) + static_cast<std::int64_t>(column) * product.inner;
  Sums sums;
  for (auto& line : sums.of)
    for (Sum& sum : line) wmma::fill_fragment(sum, 0.0F);
  load(steps[0], x, w, product.inner);
  for (int k = 0, turn = 0; k < product.inner; k += depth, turn ^= 1) {
    bool const more = k + depth < product.inner;
    if (more) load(steps[turn ^ 1], x + k + depth, w + k + depth, product.inner);
    __pipeline_wait_prior(more ? 1 : 0);
    __syncthreads();
    accumulate(steps[turn], sums);
    __syncthreads();  // or a faster warp would overwrite this step
  }
  store(product, sums, row, column);
}

__global__ void __launch_bounds__(threads) multiply_kernel(Product const product, Span* span) {
  __shared__ Step steps[2];
  if (threadIdx.x == 0) atomicMin(&span->begin, now());
  int const across = product.width / tile;
  int const tiles = product.tokens / tile * across;
  for (int i = static_cast<int>(blockIdx.x); i < tiles; i += static_cast<int>(gridDim.x))
    multiply_tile(product, i / across * tile, i % across * tile, steps);
  __syncthreads();
  if (threadIdx.x == 0) atomicMax(&span->end, now());
}

__global__ void fill_kernel(Filling const filling) {
  for (int row = static_cast<int>(blockIdx.x); row < filling.rows; row += static_cast<int>(gridDim.x)) {
    std::uint32_t const key = row_key(filling.seed, row);
    std::uint16_t* const to = filling.to + static_cast<std::int64_t>(row) * filling.columns;
    for (int column = static_cast<int>(threadIdx.x); column < filling.columns; column += threads)
      to[column] = bf16_of(value_at(key, column));
  }
}

__global__ void stamp_kernel(unsigned long long* at) {
  *at = now();
}

}  // namespace

cudaError_t load_kernels() {
  cudaFuncAttributes attributes;
  cudaError_t error = cudaFuncGetAttributes(&attributes, multiply_kernel);
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, fill_kernel);
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&attributes, stamp_kernel);
  return error;
}

cudaError_t fill(Filling const& filling, cudaStream_t stream) {
  fill_kernel<<<256, threads, 0, stream>>>(filling);
  return cudaGetLastError();
}

cudaError_t multiply(Product const& product, int blocks, Span* span, cudaStream_t stream) {
  multiply_kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(product, span);
  return cudaGetLastError();
}

cudaError_t stamp(unsigned long long* at, cudaStream_t stream) {
  stamp_kernel<<<1, 1, 0, stream>>>(at);
  return cudaGetLastError();
}

}  // namespace example
