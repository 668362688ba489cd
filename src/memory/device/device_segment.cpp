#include "memory/device/device_segment.hpp"

#include <sys/random.h>

#include <map>
#include <mutex>

#include "memory/device/cuda_check.hpp"
#include "memory/device/ipc_segment.hpp"
#include "memory/device/vmm_segment.hpp"

namespace switchyard {

namespace {

struct Registry {
  std::mutex mutex;
  std::map<std::uint64_t, std::weak_ptr<DeviceSegment>> segments;
};

Registry& registry() {
  // Never destroyed: a tensor in a static variable may let go of its segment after every other static is gone.
  static Registry& instance = *new Registry;
  return instance;
}

std::uint64_t random_id() {
  std::uint64_t id = 0;
  while (id == 0) {
    if (::getrandom(&id, sizeof id, 0) != sizeof id) throw_errno("getrandom");
  }
  return id;
}

// The driver's calls need a context, which the first call of the runtime makes.
void require_context() {
  check_cuda(cudaFree(nullptr), "making a CUDA context");
}

}  // namespace

std::shared_ptr<DeviceSegment> DeviceSegment::create(GpuMemoryKind kind, int device, std::size_t bytes,
                                                     std::size_t zeroed) {
  CurrentDevice const current(device);
  require_context();
  auto segment =
      kind == GpuMemoryKind::ipc ? IpcSegment::create(device, bytes) : VmmSegment::create(kind, device, bytes);
  if (zeroed > 0) {
    check_cuda(cudaMemset(segment->data_, 0, zeroed), "clearing a segment");
    check_cuda(cudaDeviceSynchronize(), "clearing a segment");
  }
  segment->id_ = random_id();
  std::lock_guard const lock(registry().mutex);
  registry().segments[segment->id_] = segment;
  return segment;
}

std::shared_ptr<DeviceSegment> DeviceSegment::attach(int device, SharedGpuMemory const& memory) {
  CurrentDevice const current(device);
  require_context();
  return memory.kind == GpuMemoryKind::ipc ? IpcSegment::attach(device, memory)
                                           : VmmSegment::attach(device, memory);
}

std::shared_ptr<DeviceSegment> DeviceSegment::find_in_process(std::uint64_t id, int device) {
  std::shared_ptr<DeviceSegment> segment;
  {
    std::lock_guard const lock(registry().mutex);
    auto const found = registry().segments.find(id);
    if (found != registry().segments.end()) segment = found->second.lock();
  }
  if (!segment) return nullptr;
  CurrentDevice const current(device);
  require_context();
  segment->grant(device);
  return segment;
}

DeviceSegment::~DeviceSegment() {
  if (id_ == 0) return;
  std::lock_guard const lock(registry().mutex);
  registry().segments.erase(id_);
}

std::optional<Refusal> try_gpu_memory(GpuMemoryKind kind, int device) {
  return refusal_of([&] { DeviceSegment::create(kind, device, 1, 0); });
}

}  // namespace switchyard
