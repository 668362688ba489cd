#include "memory/device/device_segment.hpp"

#include <sys/random.h>

#include <map>
#include <mutex>

#include "layout/receive_block.hpp"
#include "memory/device/cuda_check.hpp"

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

CUmemAllocationProp properties_of(int device) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  return properties;
}

std::size_t granularity_of(CUmemAllocationProp const& properties) {
  std::size_t bytes = 0;
  check_driver(Driver::get().granularity(&bytes, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED),
               "granularity of GPU memory");
  return bytes;
}

// The driver's calls need a context, which the first call of the runtime makes.
void require_context() {
  check_cuda(cudaFree(nullptr), "making a CUDA context");
}

}  // namespace

void DeviceSegment::map() {
  CUdeviceptr address = 0;
  check_driver(Driver::get().reserve(&address, bytes_, 0, 0, 0), "reserving addresses for a segment");
  data_ = reinterpret_cast<std::byte*>(address);  // NOLINT(performance-no-int-to-ptr): the driver says where
  check_driver(Driver::get().map(address, bytes_, 0, memory_, 0), "mapping a segment");
  mapped_ = true;
}

void DeviceSegment::grant(int device) {
  CUmemAccessDesc access{};
  access.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  check_driver(Driver::get().set_access(reinterpret_cast<CUdeviceptr>(data_), bytes_, &access, 1),
               "access of a GPU to a segment");
}

std::shared_ptr<DeviceSegment> DeviceSegment::create(int device, std::size_t bytes, std::size_t zeroed) {
  CurrentDevice const current(device);
  require_context();
  CUmemAllocationProp const properties = properties_of(device);
  std::shared_ptr<DeviceSegment> segment(new DeviceSegment(align_up(bytes, granularity_of(properties))));
  check_driver(Driver::get().create(&segment->memory_, segment->bytes_, &properties, 0),
               fmt::format("GPU memory of {} bytes for a segment", segment->bytes_).c_str());
  segment->has_memory_ = true;
  segment->map();
  segment->grant(device);
  check_cuda(cudaMemset(segment->data_, 0, zeroed), "clearing a segment");
  check_cuda(cudaDeviceSynchronize(), "clearing a segment");
  int fd = -1;
  check_driver(Driver::get().export_handle(&fd, segment->memory_, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0),
               "exporting a segment");
  segment->fd_ = UniqueFd(fd);
  segment->id_ = random_id();
  std::lock_guard const lock(registry().mutex);
  registry().segments[segment->id_] = segment;
  return segment;
}

std::shared_ptr<DeviceSegment> DeviceSegment::attach(int device, UniqueFd const& fd, std::size_t bytes) {
  CurrentDevice const current(device);
  require_context();
  std::shared_ptr<DeviceSegment> segment(new DeviceSegment(bytes));
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver takes a descriptor so
  auto* const handle = reinterpret_cast<void*>(static_cast<std::uintptr_t>(fd.get()));
  check_driver(Driver::get().import_handle(&segment->memory_, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR),
               "importing a peer's segment");
  segment->has_memory_ = true;
  segment->map();
  segment->grant(device);
  return segment;
}

std::shared_ptr<DeviceSegment> DeviceSegment::find_in_process(std::uint64_t id, int device) {
  std::lock_guard const lock(registry().mutex);
  auto const found = registry().segments.find(id);
  auto segment = found == registry().segments.end() ? nullptr : found->second.lock();
  if (segment) segment->grant(device);
  return segment;
}

DeviceSegment::~DeviceSegment() {
  if (id_ != 0) {
    std::lock_guard const lock(registry().mutex);
    registry().segments.erase(id_);
  }
  auto const address = reinterpret_cast<CUdeviceptr>(data_);
  // Errors (the driver is going down with the process) change nothing any more.
  if (mapped_) Driver::get().unmap(address, bytes_);
  if (data_ != nullptr) Driver::get().unreserve(address, bytes_);
  if (has_memory_) Driver::get().release(memory_);
}

}  // namespace switchyard
