// Making and exchanging the GPU segments of a buffer: its constructor's collective part.
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
  bool atomics = false;  // kernels add to words of peers
};

struct ConnectedDeviceHeap {
  std::shared_ptr<SymmetricHeap> heap;
  int ranks_per_gpu = 1;  // that share this rank's
};

// Collective; throws the same error on every rank.
ConnectedDeviceHeap connect_device_heap(Job& job, DeviceHeapRequest const& request);

}  // namespace switchyard
