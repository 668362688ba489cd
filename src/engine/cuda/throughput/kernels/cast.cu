// The cast kernel: it casts rows to e4m3, with an f32 scale for each 128 channels of a token; see device/fp8.cuh.
#include "engine/cuda/device/elements.cuh"
#include "engine/cuda/device/fp8.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/ptx/memory_order.cuh"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int cast_threads = 256;

// The greatest of all values of a warp; see larger_bits().
__device__ std::uint32_t largest_bits(float const* values, bool with_nan) {
  std::uint32_t largest = smallest_amax_bits();
  for (int i = 0; i < 4; ++i) largest = larger_bits(largest, values[i], with_nan);
  return __reduce_max_sync(~0U, largest);
}

// One warp casts a group. Lane i has elements i, i + 32, i + 64 and i + 96.
template <typename Element>
__device__ void cast_group(CastKernelArgs const& args, std::int64_t token, std::int64_t which) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  auto const* const row = reinterpret_cast<typename Element::Storage const*>(args.from) + token * args.row_stride;
  float values[4];
  for (int i = 0; i < 4; ++i) {
    std::int64_t const at = which * fp8_group + lane + 32 * i;
    values[i] = at < args.hidden ? Element::widen(row[at]) : 0.0F;
  }
  std::uint32_t bits = largest_bits(values, true);
  bool const finite = bits < infinity_bits;
  if (!finite) bits = largest_bits(values, false);
  Fp8Scaling const scaling = scaling_of(bits, finite);
  for (int i = 0; i < 4; ++i) {
    std::int64_t const at = which * fp8_group + lane + 32 * i;
    if (at < args.hidden) args.values[token * args.hidden + at] = encode_fp8(values[i], scaling.factor);
  }
  std::int64_t const groups = (args.hidden + fp8_group - 1) / fp8_group;
  if (lane == 0) args.scales[token * groups + which] = scaling.scale;
}

__global__ void __launch_bounds__(cast_threads) cast_kernel(__grid_constant__ CastKernelArgs const args) {
  ptx::wait_for_kernel_before();
  std::int64_t const groups = (args.hidden + fp8_group - 1) / fp8_group;
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

cudaError_t launch_cast(CastKernelArgs const& args, int blocks, cudaStream_t stream) {
  return launch_next(cast_kernel, args, {blocks, cast_threads, 0}, stream);
}

cudaError_t load_cast() {
  return load_kernel(cast_kernel);
}

}  // namespace switchyard::cuda
