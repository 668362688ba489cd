// Memory of the GPU for results of low-latency calls over nodes: as many at a time as the caller holds.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "memory/block_readers.hpp"
#include "memory/stream_uses.hpp"

namespace switchyard::cuda {

class ResultBays final : private StreamUses {
 public:
  // Of so many bytes each, and so many from the beginning.
  ResultBays(int device, std::size_t bytes, int count);
  ~ResultBays() override;

  // A call's inputs and results are ordered by this stream.
  void begin_call(cudaStream_t stream);
  // A bay that nobody holds. What is queued on `stream` from here on comes behind what reads it on other streams.
  // CUDA graphs have bays of their own, which they share: a result of theirs lasts until the next replay. One
  // thread at a time calls it. Throws InvalidArgument when there is no memory for one more.
  [[nodiscard]] int take(cudaStream_t stream, bool captured);
  [[nodiscard]] std::byte* at(int bay) const;
  // Nobody holds it any more. Any thread calls it.
  void give_back(int bay) noexcept;

 private:
  struct FreeMemory {
    void operator()(std::byte* memory) const noexcept { cudaFree(memory); }
  };
  struct Bay {
    std::unique_ptr<std::byte, FreeMemory> memory{};
    bool captured = false;
    bool taken = false;
    std::unique_ptr<StreamFence> readers{};  // which have what was in it last
  };

  bool note(std::byte const* at, std::uintptr_t stream) noexcept override;
  [[nodiscard]] std::unique_ptr<std::byte, FreeMemory> allocate() const;
  int add(bool captured);
  void throw_full(std::string const& why) const;

  int device_;
  std::size_t bytes_;
  std::size_t count_;         // of bays at first
  BlockReaders readers_;      // by bay
  mutable std::mutex mutex_;  // guards what follows
  std::vector<Bay> bays_;
  Entry entry_{*this};  // last
};

}  // namespace switchyard::cuda
