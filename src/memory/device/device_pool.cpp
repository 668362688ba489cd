#include "memory/device/device_pool.hpp"

#include <cstdint>
#include <iterator>
#include <limits>

#include "base/log.hpp"
#include "base/refusal.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/device/stream_fence.hpp"

namespace switchyard {

namespace {

std::size_t key_of(std::byte const* at) noexcept {
  return reinterpret_cast<std::uintptr_t>(at);
}

}  // namespace

DevicePool::DevicePool(int device) : device_(device) {
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {.type = cudaMemLocationTypeDevice, .id = device};
  check_cuda(cudaMemPoolCreate(&pool_, &properties), "a memory pool");
  // What was freed stays mapped until the pool goes: a caller's kernel may still read it.
  auto everything = std::numeric_limits<std::uint64_t>::max();
  check_cuda(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &everything), "a memory pool");
}

DevicePool::~DevicePool() {
  if (waiting_ != nullptr) cudaStreamDestroy(waiting_);  // what it still frees is freed all the same
  cudaMemPoolDestroy(pool_);
}

std::shared_ptr<std::byte> DevicePool::take(std::size_t bytes, cudaStream_t stream, std::shared_ptr<void> keep) {
  void* data = nullptr;
  check_cuda(cudaMallocFromPoolAsync(&data, bytes > 0 ? bytes : 1, pool_, stream),
             fmt::format("{} bytes of GPU memory outside of the heap", bytes));
  auto* const at = static_cast<std::byte*>(data);
  {
    std::lock_guard const lock(mutex_);
    taken_.emplace(at, bytes);
  }
  return {at,
          [pool = shared_from_this(), stream, keep = std::move(keep)](std::byte* was) { pool->free(was, stream); }};
}

bool DevicePool::note(std::byte const* at, std::uintptr_t stream) noexcept {
  std::lock_guard const lock(mutex_);
  auto const behind = taken_.upper_bound(at);
  if (behind == taken_.begin()) return false;
  auto const [begin, bytes] = *std::prev(behind);
  if (at >= begin + bytes) return false;
  if (auto const refusal = refusal_of([&, block = key_of(begin)] { readers_.note(block, stream); }))
    logger().error("noting that a stream reads a tensor: {}", refusal->text);
  return true;
}

void DevicePool::free(std::byte* at, cudaStream_t stream) {
  std::lock_guard const lock(mutex_);
  taken_.erase(at);
  auto streams = readers_.take(key_of(at));
  if (streams.empty()) {
    cudaFreeAsync(at, stream);
    return;
  }
  auto const refusal = refusal_of([&] {
    CurrentDevice const current(device_);
    if (waiting_ == nullptr)
      check_cuda(cudaStreamCreateWithFlags(&waiting_, cudaStreamNonBlocking), "cudaStreamCreate");
    streams.push_back(reinterpret_cast<std::uintptr_t>(stream));
    make_stream_fence(device_, streams)->make_stream_wait(reinterpret_cast<std::uintptr_t>(waiting_));
    check_cuda(cudaFreeAsync(at, waiting_), "cudaFreeAsync");
  });
  // The memory stays taken: nobody knows when it has been read.
  if (refusal) logger().error("memory outside of the heap that other streams read: {}", refusal->text);
}

}  // namespace switchyard
