// Small kernels that give results another form; see throughput/results.hpp. A framework would take several
// operations for each, and each of these takes the host as long as a kernel of ours.
#include <algorithm>

#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/throughput/results.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int result_threads = 256;
inline constexpr std::int64_t most_result_blocks = 1024;

__device__ std::int64_t first_thread() {
  return static_cast<std::int64_t>(blockIdx.x) * result_threads + threadIdx.x;
}

__device__ std::int64_t all_threads() {
  return static_cast<std::int64_t>(gridDim.x) * result_threads;
}

__global__ void __launch_bounds__(result_threads)
    add_received_kernel(__grid_constant__ AddReceivedArgs const args) {
  for (std::int64_t expert = first_thread(); expert < args.local_experts; expert += all_threads()) {
    std::int64_t rows = 0;
    for (int rank = 0; rank < args.num_ranks; ++rank) rows += args.counts[rank * args.pitch + 1 + expert];
    if (args.wide)
      static_cast<std::int64_t*>(args.to)[expert * args.stride] += rows;
    else
      static_cast<std::int32_t*>(args.to)[expert * args.stride] += static_cast<std::int32_t>(rows);
  }
}

// Neighbouring threads have neighbouring rows of a column, so that what they write is adjacent.
__global__ void __launch_bounds__(result_threads) by_column_kernel(__grid_constant__ ByColumnArgs const args) {
  for (std::int64_t i = first_thread(); i < args.rows * args.columns; i += all_threads()) {
    std::int64_t const row = i % args.rows;
    std::int64_t const column = i / args.rows;
    args.to[column * args.pitch + row] = args.from[row * args.strides[0] + column * args.strides[1]];
  }
}

// Behind all that is in the stream, which is the caller's: other kernels of it do not know when these may begin.
template <typename Args>
cudaError_t launch(void (*kernel)(Args), Args const& args, std::int64_t threads, cudaStream_t stream) {
  std::int64_t const blocks = (threads + result_threads - 1) / result_threads;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, most_result_blocks)));
  config.blockDim = dim3(result_threads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, args);
}

}  // namespace

cudaError_t launch_add_received(AddReceivedArgs const& args, cudaStream_t stream) {
  return launch(add_received_kernel, args, args.local_experts, stream);
}

cudaError_t launch_by_column(ByColumnArgs const& args, cudaStream_t stream) {
  return launch(by_column_kernel, args, args.rows * args.columns, stream);
}

cudaError_t load_results() {
  cudaError_t const first = load_kernel(add_received_kernel);
  return first != cudaSuccess ? first : load_kernel(by_column_kernel);
}

}  // namespace switchyard::cuda
