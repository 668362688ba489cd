// Cast to e4m3 with one f32 scale per token and 128 channels: amax at least 1e-4, scale = amax / 448,
// q = e4m3(x * (448 / amax)); bit by bit what engine/cpu/simd_cast.cpp gives.
#include <cuda_fp8.h>

#include "engine/cuda/kernels/launch_next.cuh"
#include "engine/cuda/launch.hpp"
#include "engine/cuda/phases/elements.cuh"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

namespace {

inline constexpr int cast_threads = 256;
inline constexpr int group = 128;
inline constexpr std::uint32_t infinity_bits = 0x7f800000;

// The largest magnitude of the warp's values, as bits: they order as the numbers do. NaN only counts `with_nan`.
__device__ std::uint32_t largest_bits(float const* values, bool with_nan) {
  std::uint32_t largest = __float_as_uint(1e-4F);
  for (int i = 0; i < 4; ++i) {
    std::uint32_t const bits = __float_as_uint(values[i]) & 0x7fffffffU;
    if (with_nan || bits <= infinity_bits) largest = max(largest, bits);
  }
  return __reduce_max_sync(~0U, largest);
}

__device__ std::uint8_t encode(float value, float factor) {
  float const scaled = __fmul_rn(value, factor);
  std::uint8_t const sign = static_cast<std::uint8_t>(__float_as_uint(value) >> 24 & 0x80);
  if (scaled != scaled) return sign | 0x7f;
  auto const code = __nv_cvt_float_to_fp8(fabsf(scaled), __NV_SATFINITE, __NV_E4M3);
  return static_cast<std::uint8_t>(sign | (code & 0x7f));
}

// One group by one warp: lane i has elements i, i + 32, i + 64 and i + 96.
template <typename Element>
__device__ void cast_group(CastArgs const& args, std::int64_t token, std::int64_t which) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  auto const* const row = reinterpret_cast<typename Element::Storage const*>(args.from) + token * args.row_stride;
  float values[4];
  for (int i = 0; i < 4; ++i) {
    std::int64_t const at = which * group + lane + 32 * i;
    values[i] = at < args.hidden ? Element::widen(row[at]) : 0.0F;
  }
  std::uint32_t bits = largest_bits(values, true);
  if (bits >= infinity_bits) bits = largest_bits(values, false);
  float const amax = __uint_as_float(bits);
  float const factor = __fdiv_rn(448.0F, amax);
  for (int i = 0; i < 4; ++i) {
    std::int64_t const at = which * group + lane + 32 * i;
    if (at < args.hidden) args.values[token * args.hidden + at] = encode(values[i], factor);
  }
  std::int64_t const groups = (args.hidden + group - 1) / group;
  if (lane == 0) args.scales[token * groups + which] = __fdiv_rn(amax, 448.0F);
}

__global__ void __launch_bounds__(cast_threads) cast_kernel(__grid_constant__ CastArgs const args) {
  ptx::wait_for_kernel_before();
  std::int64_t const groups = (args.hidden + group - 1) / group;
  std::int64_t const step = static_cast<std::int64_t>(gridDim.x) * (cast_threads / 32);
  for (std::int64_t i = blockIdx.x * (cast_threads / 32) + threadIdx.x / 32; i < args.tokens * groups; i += step) {
    switch (args.dtype) {
      case DType::bf16: cast_group<Bf16>(args, i / groups, i % groups); break;
      case DType::f16: cast_group<F16>(args, i / groups, i % groups); break;
      default: cast_group<F32>(args, i / groups, i % groups); break;
    }
  }
}

}  // namespace

cudaError_t launch_cast(CastArgs const& args, int blocks, cudaStream_t stream) {
  return launch_next(cast_kernel, args, {blocks, cast_threads, 0}, stream);
}

cudaError_t load_cast() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, cast_kernel);
}

}  // namespace switchyard::cuda
