#include "memory/device/vmm_segment.hpp"

#include "base/check.hpp"
#include "layout/receive_block.hpp"

namespace switchyard {

namespace {

static_assert(sizeof(CUmemFabricHandle) == sizeof(GpuMemoryHandle));

CUmemAllocationHandleType type_of(GpuMemoryKind kind) {
  return kind == GpuMemoryKind::fabric ? CU_MEM_HANDLE_TYPE_FABRIC : CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
}

CUmemAllocationProp properties_of(GpuMemoryKind kind, int device) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
  properties.requestedHandleTypes = type_of(kind);
  return properties;
}

std::size_t granularity_of(CUmemAllocationProp const& properties, CUmemAllocationGranularity_flags which) {
  std::size_t bytes = 0;
  check_driver(Driver::get().granularity(&bytes, &properties, which), "granularity of GPU memory");
  return bytes;
}

}  // namespace

void VmmSegment::export_handle() {
  if (kind_ == GpuMemoryKind::fabric) {
    check_driver(Driver::get().export_handle(handle_.data(), memory_, type_of(kind_), 0),
                 "exporting a segment as a fabric handle");
    return;
  }
  int fd = -1;
  check_driver(Driver::get().export_handle(&fd, memory_, type_of(kind_), 0), "exporting a segment as a descriptor");
  fd_ = UniqueFd(fd);
}

void VmmSegment::import_from(SharedGpuMemory const& memory) {
  GpuMemoryHandle handle = memory.handle;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver takes a descriptor so
  auto* const fd = reinterpret_cast<void*>(static_cast<std::uintptr_t>(memory.fd));
  void* const from = kind_ == GpuMemoryKind::fabric ? handle.data() : fd;
  check_driver(Driver::get().import_handle(&memory_, from, type_of(kind_)), "importing a segment");
  has_memory_ = true;
}

void VmmSegment::map() {
  CUdeviceptr address = 0;
  check_driver(Driver::get().reserve(&address, bytes_, 0, 0, 0), "reserving addresses for a segment");
  data_ = reinterpret_cast<std::byte*>(address);  // NOLINT(performance-no-int-to-ptr): the driver says where
  check_driver(Driver::get().map(address, bytes_, 0, memory_, 0), "mapping a segment");
  mapped_ = true;
}

void VmmSegment::grant(int device) {
  // The driver refuses to grant access twice ("already mapped"), but ranks that are threads may share a GPU.
  std::lock_guard const lock(granting_);
  if (granted_.contains(device)) return;
  CUmemAccessDesc access{};
  access.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  check_driver(Driver::get().set_access(reinterpret_cast<CUdeviceptr>(data_), bytes_, &access, 1),
               "access of a GPU to a segment");
  granted_.insert(device);
}

std::shared_ptr<DeviceSegment> VmmSegment::create(GpuMemoryKind kind, int device, std::size_t bytes) {
  CUmemAllocationProp const properties = properties_of(kind, device);
  std::size_t const granule = granularity_of(properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
  std::shared_ptr<VmmSegment> segment(new VmmSegment(kind, align_up(bytes, granule)));
  check_driver(Driver::get().create(&segment->memory_, segment->bytes_, &properties, 0),
               fmt::format("GPU memory of {} bytes for a segment", segment->bytes_).c_str());
  segment->has_memory_ = true;
  segment->map();
  segment->grant(device);
  segment->export_handle();
  return segment;
}

std::shared_ptr<DeviceSegment> VmmSegment::attach(int device, SharedGpuMemory const& memory) {
  std::size_t const granule = granularity_of(properties_of(memory.kind, device), CU_MEM_ALLOC_GRANULARITY_MINIMUM);
  require(memory.bytes > 0 && memory.bytes % granule == 0, "size: expected a multiple of {} bytes, seen {}",
          granule, memory.bytes);
  std::shared_ptr<VmmSegment> segment(new VmmSegment(memory.kind, memory.bytes));
  segment->import_from(memory);
  segment->map();  // the driver refuses a size beyond the memory's
  segment->grant(device);
  return segment;
}

VmmSegment::~VmmSegment() {
  auto const address = reinterpret_cast<CUdeviceptr>(data_);
  // Errors (the driver is going down with the process) change nothing any more.
  if (mapped_) Driver::get().unmap(address, bytes_);
  if (data_ != nullptr) Driver::get().unreserve(address, bytes_);
  if (has_memory_) Driver::get().release(memory_);
}

}  // namespace switchyard
