// Copies in memory of the host of what a dispatch says of routing: hosts count and route.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "engine/cuda/host/pinned_memory.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::cuda {

class HostCopies {
 public:
  // Puts copies in the place of topk_idx, topk_weights and token_in_rank, as far as they are given, with the same
  // strides. They are there until the next call. Waits for the stream.
  void take(DispatchArgs& args, cudaStream_t stream);

 private:
  std::byte* room(std::size_t bytes);

  std::unique_ptr<PinnedMemory> memory_;
};

}  // namespace switchyard::cuda
