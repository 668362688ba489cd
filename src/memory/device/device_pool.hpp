// GPU memory outside of any heap, taken and freed in the order of a stream: neither waits for kernels, which may be
// waiting for peers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

namespace switchyard {

class DevicePool : public std::enable_shared_from_this<DevicePool> {
 public:
  explicit DevicePool(int device);
  ~DevicePool();
  DevicePool(DevicePool const&) = delete;
  DevicePool& operator=(DevicePool const&) = delete;

  // Takes memory for what is queued on `stream` from here on. When the last owner releases it, it is freed behind
  // what has been queued there by then. The owner keeps `keep`, which must keep the stream. Throws OutOfMemory.
  std::shared_ptr<std::byte> take(std::size_t bytes, cudaStream_t stream, std::shared_ptr<void> keep);

 private:
  cudaMemPool_t pool_ = nullptr;
};

}  // namespace switchyard
