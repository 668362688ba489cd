#include "memory/device/device_segment.hpp"

#include "memory/device/cuda_check.hpp"
#include "memory/device/ipc_segment.hpp"
#include "memory/device/vmm_segment.hpp"
#include "memory/segment_registry.hpp"

namespace switchyard {

namespace {

using Registry = SegmentRegistry<DeviceSegment>;

// The driver's calls need a context, which the first call of the runtime makes.
void require_context() {
  check_cuda(cudaFree(nullptr), "making a CUDA context");
}

}  // namespace

std::shared_ptr<DeviceSegment> DeviceSegment::create(GpuMemoryKind kind, int device,
                                                     DeviceSegmentSizes const& sizes) {
  CurrentDevice const current(device);
  require_context();
  auto segment = kind == GpuMemoryKind::ipc ? IpcSegment::create(device, sizes.bytes)
                                            : VmmSegment::create(kind, device, sizes.bytes, sizes.capacity);
  if (sizes.zeroed > 0) {
    check_cuda(cudaMemset(segment->data_, 0, sizes.zeroed), "clearing a segment");
    check_cuda(cudaDeviceSynchronize(), "clearing a segment");
  }
  segment->id_ = Registry::instance().add(segment);
  return segment;
}

std::shared_ptr<DeviceSegment> DeviceSegment::attach(int device, SharedGpuMemory const& memory) {
  CurrentDevice const current(device);
  require_context();
  return memory.kind == GpuMemoryKind::ipc ? IpcSegment::attach(device, memory)
                                           : VmmSegment::attach(device, memory);
}

std::shared_ptr<DeviceSegment> DeviceSegment::find_in_process(std::uint64_t id, int device) {
  std::shared_ptr<DeviceSegment> segment = Registry::instance().find(id);
  if (!segment) return nullptr;
  CurrentDevice const current(device);
  require_context();
  segment->grant(device);
  return segment;
}

DeviceSegment::~DeviceSegment() {
  if (id_ != 0) Registry::instance().remove(id_);
}

std::optional<Refusal> try_gpu_memory(GpuMemoryKind kind, int device) {
  return refusal_of([&] { DeviceSegment::create(kind, device, {.bytes = 1}); });
}

}  // namespace switchyard
