// Launching a kernel behind what is in its stream, and the dynamic shared memory that its blocks may have.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace switchyard::cuda {

// GPUs from sm_90 on start the blocks of a kernel while the kernel before it in the stream drains. The new blocks
// wait in ptx::wait_for_kernel_before() before they read anything. That hides most of the time of a launch.
inline bool starts_early() {
  struct Known {
    int device = -1;
    bool early = false;
  };
  thread_local Known known;  // a thread hardly ever changes its device
  int device = 0;
  int major = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return false;
  if (device == known.device) return known.early;
  if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess) return false;
  known = {.device = device, .early = major >= 9};
  return known.early;
}

struct LaunchShape {
  int blocks;
  int threads;
  std::size_t shared;  // bytes of dynamic shared memory of a block
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

// Brings a kernel into the current context.
template <typename Args>
cudaError_t load_kernel(void (*kernel)(Args)) {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, kernel);
}

// Bytes that a block may have in addition to its static shared memory; 0 when the device cannot be asked.
template <typename Args>
std::size_t dynamic_limit(void (*kernel)(Args)) {
  struct Known {
    void (*kernel)(Args) = nullptr;
    int device = -1;
    std::size_t limit = 0;
  };
  thread_local Known known;  // launches of the low-latency mode ask about one kernel
  int device = 0;
  int limit = 0;
  cudaFuncAttributes attributes;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  if (known.kernel == kernel && known.device == device) return known.limit;
  if (cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) return 0;
  if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess) return 0;
  known = {
      .kernel = kernel, .device = device, .limit = static_cast<std::size_t>(limit) - attributes.sharedSizeBytes};
  return known.limit;
}

template <typename Args>
cudaError_t allow_all_memory(void (*kernel)(Args)) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(dynamic_limit(kernel)));
}

// Rings that the copy engine fills begin at this alignment. Dynamic shared memory need not begin there, so a launch
// asks for as many bytes more.
inline constexpr std::size_t ring_alignment = 128;

__device__ inline std::byte* align_ring(std::byte* shared) {
  auto const at = reinterpret_cast<std::uintptr_t>(shared);
  return shared + (ring_alignment - at % ring_alignment) % ring_alignment;
}

// The part of dynamic_limit() that is left for rings after their alignment.
template <typename Args>
std::size_t ring_room(void (*kernel)(Args)) {
  std::size_t const limit = dynamic_limit(kernel);
  return limit > ring_alignment ? limit - ring_alignment : 0;
}

}  // namespace switchyard::cuda
