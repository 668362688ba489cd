// GPU memory outside of any heap, in the order of a stream: neither taking nor freeing waits for kernels, which may
// wait for peers.
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

  // Throws OutOfMemory. Usable by what is queued on `stream` afterwards; freed behind what is queued there when the
  // owner lets go. The owner keeps `keep`, which keeps the stream.
  std::shared_ptr<std::byte> take(std::size_t bytes, cudaStream_t stream, std::shared_ptr<void> keep);

 private:
  cudaMemPool_t pool_ = nullptr;
};

}  // namespace switchyard
