// The dynamic shared memory of kernels whose rows travel through rings.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace switchyard::cuda {

inline constexpr std::size_t ring_alignment = 128;

__device__ inline std::byte* align_ring(std::byte* shared) {
  auto const at = reinterpret_cast<std::uintptr_t>(shared);
  return shared + (ring_alignment - at % ring_alignment) % ring_alignment;
}

// What a block may have beside its static shared memory; 0 when the device cannot be asked.
template <typename Args>
std::size_t dynamic_limit(void (*kernel)(Args)) {
  int device = 0;
  int limit = 0;
  cudaFuncAttributes attributes;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  if (cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) return 0;
  if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess) return 0;
  return static_cast<std::size_t>(limit) - attributes.sharedSizeBytes;
}

template <typename Args>
cudaError_t allow_all_memory(void (*kernel)(Args)) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(dynamic_limit(kernel)));
}

// Of that, for rings that may have to be aligned.
template <typename Args>
std::size_t ring_room(void (*kernel)(Args)) {
  std::size_t const limit = dynamic_limit(kernel);
  return limit > ring_alignment ? limit - ring_alignment : 0;
}

}  // namespace switchyard::cuda
