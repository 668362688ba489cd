#include "engine/cuda/host/command_ring_memory.hpp"

#include <cuda_runtime_api.h>

#include <bit>
#include <cstring>

#include "base/check.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

namespace {

// Lines of the host, so that what the GPU reads over and over shares none with what it writes.
constexpr std::size_t words_a_line = cache_line / sizeof(std::uint64_t);

}  // namespace

CommandRingMemory::CommandRingMemory(std::uint32_t places) : places_(places) {
  require(std::has_single_bit(places) && places >= words_a_line,
          "places of a command ring: expected a power of two of at least {}, seen {}", words_a_line, places);
  std::size_t const bytes = (places + words_a_line) * sizeof(std::uint64_t);
  void* host = nullptr;
  check_cuda(cudaHostAlloc(&host, bytes, cudaHostAllocMapped | cudaHostAllocPortable), "pinned memory");
  host_.reset(static_cast<std::uint64_t*>(host));
  std::memset(host, 0, bytes);
  void* words = nullptr;
  check_cuda(cudaHostGetDevicePointer(&words, host, 0), "pinned memory");
  void* device = nullptr;
  check_cuda(cudaMalloc(&device, 2 * cache_line), "memory of a command ring");
  device_.reset(static_cast<std::uint64_t*>(device));
  check_cuda(cudaMemset(device, 0, 2 * cache_line), "memory of a command ring");
  check_cuda(cudaDeviceSynchronize(), "memory of a command ring");
  view_ = {.words = static_cast<std::uint64_t*>(words),
           .taken = static_cast<std::uint64_t*>(words) + places,
           .next = device_.get(),
           .seen_taken = device_.get() + words_a_line,
           .places = places};
}

void CommandRingMemory::FreeHost::operator()(std::uint64_t* memory) const noexcept {
  cudaFreeHost(memory);
}

void CommandRingMemory::FreeDevice::operator()(std::uint64_t* memory) const noexcept {
  cudaFree(memory);
}

}  // namespace switchyard::cuda
