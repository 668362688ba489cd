#include "engine/cuda/host/pinned_memory.hpp"

#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

PinnedMemory::PinnedMemory(std::size_t bytes) {
  void* memory = nullptr;
  check_cuda(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped),
             "pinned memory of the host");
  bytes_ = {static_cast<std::byte*>(memory), bytes};
}

PinnedMemory::~PinnedMemory() {
  cudaFreeHost(bytes_.data());
}

std::shared_ptr<void> pin(int device, std::span<std::byte> memory) {
  CurrentDevice const current(device);
  int same_address = 0;
  check_cuda(cudaDeviceGetAttribute(&same_address, cudaDevAttrCanUseHostPointerForRegisteredMem, device),
             "cudaDeviceGetAttribute");
  if (same_address == 0)
    throw Unsupported(
        fmt::format("GPU {}: expected one that reads registered memory at the host's address", device));
  check_cuda(cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterPortable | cudaHostRegisterMapped),
             fmt::format("pinning {} bytes of the host's memory", memory.size()));
  return {memory.data(), [device](void* data) {
            int before = 0;
            cudaGetDevice(&before);
            cudaSetDevice(device);
            cudaHostUnregister(data);
            cudaSetDevice(before);
          }};
}

}  // namespace switchyard::cuda
