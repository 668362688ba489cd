// Makes and exchanges the GPU segments of a buffer: a collective part of its constructor.
#pragma once

#include <chrono>
#include <memory>

#include "layout/device_control.hpp"
#include "memory/symmetric_heap.hpp"
#include "node/node.hpp"
#include "node/rank_group.hpp"

namespace switchyard {

struct DeviceHeapRequest {
  int device = 0;
  DeviceSizes sizes;
  std::size_t heap_bytes = 0;            // at first
  bool grows = false;                    // when that is too little, as far as the GPU has memory
  std::chrono::milliseconds timeout{0};  // of the wait for peers to map what it grew by
  bool atomics = false;                  // kernels use atomic additions on words of peers
};

struct ConnectedDeviceHeap {
  std::shared_ptr<SymmetricHeap> heap;
  int ranks_per_gpu = 1;  // ranks that share the GPU of this rank
};

// Collective; throws the same error on every rank.
ConnectedDeviceHeap connect_device_heap(RankGroup& job, std::shared_ptr<Node> const& members,
                                        DeviceHeapRequest const& request);

}  // namespace switchyard
