// Makes and exchanges the GPU segments of a buffer: a collective part of its constructor.
#pragma once

#include <memory>

#include "layout/device_control.hpp"
#include "memory/symmetric_heap.hpp"
#include "node/job.hpp"

namespace switchyard {

struct DeviceHeapRequest {
  int device = 0;
  DeviceSizes sizes;
  std::size_t heap_bytes = 0;
  bool atomics = false;  // kernels use atomic additions on words of peers
};

struct ConnectedDeviceHeap {
  std::shared_ptr<SymmetricHeap> heap;
  int ranks_per_gpu = 1;  // ranks that share the GPU of this rank
};

// Collective; throws the same error on every rank.
ConnectedDeviceHeap connect_device_heap(Job& job, DeviceHeapRequest const& request);

}  // namespace switchyard
