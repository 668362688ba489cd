#include "memory/device/device_pool.hpp"

#include <cstdint>
#include <limits>

#include "memory/device/cuda_check.hpp"

namespace switchyard {

DevicePool::DevicePool(int device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {.type = cudaMemLocationTypeDevice, .id = device};
  check_cuda(cudaMemPoolCreate(&pool_, &properties), "a memory pool");
  // What was freed stays mapped until the pool goes: a caller's kernel may still read it.
  auto everything = std::numeric_limits<std::uint64_t>::max();
  check_cuda(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &everything), "a memory pool");
}

DevicePool::~DevicePool() {
  cudaMemPoolDestroy(pool_);
}

std::shared_ptr<std::byte> DevicePool::take(std::size_t bytes, cudaStream_t stream, std::shared_ptr<void> keep) {
  void* data = nullptr;
  check_cuda(cudaMallocFromPoolAsync(&data, bytes > 0 ? bytes : 1, pool_, stream),
             fmt::format("{} bytes of GPU memory outside of the heap", bytes));
  return {static_cast<std::byte*>(data), [pool = shared_from_this(), stream,
                                          keep = std::move(keep)](std::byte* at) { cudaFreeAsync(at, stream); }};
}

}  // namespace switchyard
