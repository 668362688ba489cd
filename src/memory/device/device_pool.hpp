// GPU memory outside of any heap, taken and freed in the order of a stream: neither waits for kernels, which may be
// waiting for peers.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "memory/block_readers.hpp"
#include "memory/stream_uses.hpp"

namespace switchyard {

class DevicePool : public std::enable_shared_from_this<DevicePool>, private StreamUses {
 public:
  explicit DevicePool(int device);
  ~DevicePool() override;
  DevicePool(DevicePool const&) = delete;
  DevicePool& operator=(DevicePool const&) = delete;

  // Takes memory for what is queued on `stream` from here on. When the last owner releases it, it is freed behind
  // what has been queued by then there, and on streams that read it (note_stream_use()). The owner keeps `keep`,
  // which must keep the stream. Throws OutOfMemory.
  std::shared_ptr<std::byte> take(std::size_t bytes, cudaStream_t stream, std::shared_ptr<void> keep);

 private:
  bool note(std::byte const* at, std::uintptr_t stream) noexcept override;
  void free(std::byte* at, cudaStream_t stream);  // throws nothing

  int device_;
  cudaMemPool_t pool_ = nullptr;
  cudaStream_t waiting_ = nullptr;                 // frees what other streams read
  std::mutex mutex_;                               // guards what follows
  std::map<std::byte const*, std::size_t> taken_;  // bytes
  BlockReaders readers_;                           // by address
  StreamUses::Entry entry_{*this};                 // last
};

}  // namespace switchyard
