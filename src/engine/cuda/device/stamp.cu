// The stamp, for benchmarks: it writes down when the stream came to this point, by the GPU's clock.
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/host/launch.hpp"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

namespace {

__global__ void stamp_kernel(std::uint64_t* to) {
  *to = ptx::global_timer();
}

}  // namespace

cudaError_t launch_stamp(std::uint64_t* to, cudaStream_t stream) {
  stamp_kernel<<<1, 1, 0, stream>>>(to);
  return cudaGetLastError();
}

cudaError_t load_stamp() {
  return load_kernel(stamp_kernel);
}

}  // namespace switchyard::cuda
