// Launching a kernel behind what is in its stream.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace switchyard::cuda {

// GPUs from sm_90 on start the blocks of a kernel while the one before it in the stream drains; the kernel then
// waits in ptx::wait_for_kernel_before() before it looks at anything. That takes most of a launch out of the way.
inline bool starts_early() {
  int device = 0;
  int major = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess) return false;
  return major >= 9;
}

struct LaunchShape {
  int blocks;
  int threads;
  std::size_t shared;  // bytes, dynamic
};

template <typename Args>
cudaError_t launch_next(void (*kernel)(Args), Args const& args, LaunchShape const& shape, cudaStream_t stream) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.shared;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = starts_early() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, args);
}

}  // namespace switchyard::cuda
