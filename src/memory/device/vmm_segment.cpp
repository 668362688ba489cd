#include "memory/device/vmm_segment.hpp"

#include <fcntl.h>

#include <algorithm>

#include "base/check.hpp"
#include "layout/receive_block.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard {

namespace {

static_assert(sizeof(CUmemFabricHandle) == sizeof(GpuMemoryHandle));

// Of one segment: a process maps those of all ranks of a node into 47 bits of addresses.
constexpr std::size_t most_capacity = std::size_t{1} << 44;

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

VmmSegment::VmmSegment(GpuMemoryKind kind, int device, std::size_t capacity)
    : DeviceSegment(0, capacity), kind_(kind), device_(device) {
  CUdeviceptr address = 0;
  check_driver(Driver::get().reserve(&address, capacity, 0, 0, 0), "reserving addresses for a segment");
  data_ = reinterpret_cast<std::byte*>(address);  // NOLINT(performance-no-int-to-ptr): the driver says where
}

SegmentPart VmmSegment::exported(Memory memory, std::size_t offset, std::size_t bytes) const {
  SegmentPart part{.offset = offset, .bytes = bytes};
  if (kind_ == GpuMemoryKind::fabric) {
    check_driver(Driver::get().export_handle(part.handle.data(), memory, type_of(kind_), 0),
                 "exporting a segment as a fabric handle");
    return part;
  }
  int fd = -1;
  check_driver(Driver::get().export_handle(&fd, memory, type_of(kind_), 0), "exporting a segment as a descriptor");
  part.fd = UniqueFd(fd);
  return part;
}

VmmSegment::Memory VmmSegment::import_from(SegmentPart const& part) const {
  GpuMemoryHandle handle = part.handle;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver takes a descriptor so
  auto* const fd = reinterpret_cast<void*>(static_cast<std::uintptr_t>(part.fd.get()));
  void* const from = kind_ == GpuMemoryKind::fabric ? handle.data() : fd;
  Memory memory = 0;
  check_driver(Driver::get().import_handle(&memory, from, type_of(kind_)), "importing a segment");
  return memory;
}

// Takes the memory over, also when it throws.
void VmmSegment::add(Memory memory, std::size_t offset, std::size_t bytes) {
  Mapped const part{.memory = memory, .offset = offset, .bytes = bytes};
  CUresult const mapped = Driver::get().map(address() + offset, bytes, 0, memory, 0);
  if (mapped != CUDA_SUCCESS) Driver::get().release(memory);
  check_driver(mapped, "mapping a segment");  // the driver refuses a size beyond the memory's
  std::lock_guard const lock(changing_);
  parts_.push_back(part);
  try {
    granted_.insert(device_);
    for (int const device : granted_) allow(device, part);
  } catch (...) {
    unmap(part);
    parts_.pop_back();
    throw;
  }
  set_bytes(offset + bytes);
}

void VmmSegment::unmap(Mapped const& part) noexcept {
  // Errors (the driver is going down with the process) change nothing any more.
  Driver::get().unmap(address() + part.offset, part.bytes);
  Driver::get().release(part.memory);
}

void VmmSegment::allow(int device, Mapped const& part) {
  CUmemAccessDesc access{};
  access.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  check_driver(Driver::get().set_access(address() + part.offset, part.bytes, &access, 1),
               "access of a GPU to a segment");
}

void VmmSegment::grant(int device) {
  // The driver refuses to grant access twice ("already mapped"), but ranks that are threads may share a GPU.
  std::lock_guard const lock(changing_);
  if (granted_.contains(device)) return;
  for (Mapped const& part : parts_) allow(device, part);
  granted_.insert(device);
}

SegmentPart VmmSegment::add_new(std::size_t bytes) {
  std::size_t const offset = this->bytes();
  CUmemAllocationProp const properties = properties_of(kind_, device_);
  Memory memory = 0;
  check_driver(Driver::get().create(&memory, bytes, &properties, 0),
               fmt::format("GPU memory of {} bytes for a segment", bytes).c_str());
  add(memory, offset, bytes);
  try {
    return exported(memory, offset, bytes);
  } catch (...) {
    VmmSegment::shrink(offset);
    throw;
  }
}

SegmentPart VmmSegment::grow(std::size_t bytes) {
  CurrentDevice const current(device_);
  std::size_t const granule = granularity_of(properties_of(kind_, device_), CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
  std::size_t const whole = align_up(bytes, granule);
  if (whole > capacity() - this->bytes())
    throw OutOfMemory(fmt::format("a segment: expected at most {} bytes, seen {} to be added to {}", capacity(),
                                  whole, this->bytes()));
  return add_new(whole);
}

void VmmSegment::append(SegmentPart const& part) {
  CurrentDevice const current(device_);
  require(part.offset == bytes() && part.bytes <= capacity() - bytes(),
          "part of a segment: expected one at {} of at most {} bytes, seen {} bytes at {}", bytes(),
          capacity() - bytes(), part.bytes, part.offset);
  add(import_from(part), part.offset, part.bytes);
}

void VmmSegment::shrink(std::size_t bytes) {
  CurrentDevice const current(device_);
  std::lock_guard const lock(changing_);
  while (!parts_.empty() && parts_.back().offset >= bytes) {
    set_bytes(parts_.back().offset);
    unmap(parts_.back());
    parts_.pop_back();
  }
}

std::shared_ptr<DeviceSegment> VmmSegment::create(GpuMemoryKind kind, int device, std::size_t bytes,
                                                  std::size_t capacity) {
  std::size_t const granule = granularity_of(properties_of(kind, device), CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
  std::size_t const whole = align_up(bytes, granule);
  std::shared_ptr<VmmSegment> segment(new VmmSegment(kind, device, std::max(whole, align_up(capacity, granule))));
  segment->first_ = segment->add_new(whole);
  return segment;
}

std::shared_ptr<DeviceSegment> VmmSegment::attach(int device, SharedGpuMemory const& memory) {
  std::size_t const granule = granularity_of(properties_of(memory.kind, device), CU_MEM_ALLOC_GRANULARITY_MINIMUM);
  require(memory.bytes > 0 && memory.bytes % granule == 0, "size: expected a multiple of {} bytes, seen {}",
          granule, memory.bytes);
  require(memory.capacity >= memory.bytes && memory.capacity % granule == 0 && memory.capacity <= most_capacity,
          "capacity: expected a multiple of {} bytes from {} to {}, seen {}", granule, memory.bytes, most_capacity,
          memory.capacity);
  std::shared_ptr<VmmSegment> segment(new VmmSegment(memory.kind, device, memory.capacity));
  SegmentPart part{.bytes = memory.bytes, .handle = memory.handle};
  // The caller keeps its descriptor.
  if (memory.fd >= 0)
    part.fd = UniqueFd(check_call(::fcntl(memory.fd, F_DUPFD_CLOEXEC, 0), "duplicate a descriptor"));
  segment->append(part);
  return segment;
}

VmmSegment::~VmmSegment() {
  for (Mapped const& part : parts_) unmap(part);
  Driver::get().unreserve(address(), capacity());
}

}  // namespace switchyard
