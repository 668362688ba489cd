#include "memory/device/ipc_segment.hpp"

#include <bit>

#include "layout/receive_block.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/device/driver.hpp"

namespace switchyard {

namespace {

static_assert(sizeof(cudaIpcMemHandle_t) == sizeof(GpuMemoryHandle));

// cudaMalloc carves what is smaller out of blocks of this size, and a handle opens the whole block.
constexpr std::size_t block_bytes = std::size_t{2} << 20;

}  // namespace

std::shared_ptr<DeviceSegment> IpcSegment::create(int device, std::size_t bytes) {
  std::shared_ptr<IpcSegment> segment(new IpcSegment(device, align_up(bytes, block_bytes), true));
  void* data = nullptr;
  check_cuda(cudaMalloc(&data, segment->bytes()),
             fmt::format("GPU memory of {} bytes for a segment", segment->bytes()));
  segment->data_ = static_cast<std::byte*>(data);
  cudaIpcMemHandle_t handle{};
  check_cuda(cudaIpcGetMemHandle(&handle, data), "exporting a segment by CUDA IPC");
  segment->handle_ = std::bit_cast<GpuMemoryHandle>(handle);
  return segment;
}

std::shared_ptr<DeviceSegment> IpcSegment::attach(int device, SharedGpuMemory const& memory) {
  std::shared_ptr<IpcSegment> segment(new IpcSegment(device, memory.bytes, false));
  void* data = nullptr;
  check_cuda(
      cudaIpcOpenMemHandle(&data, std::bit_cast<cudaIpcMemHandle_t>(memory.handle), cudaIpcMemLazyEnablePeerAccess),
      "opening a segment by CUDA IPC");
  segment->data_ = static_cast<std::byte*>(data);
  segment->check_range();
  return segment;
}

// Checks the size that the sender claims against what the handle really maps.
void IpcSegment::check_range() const {
  CUdeviceptr base = 0;
  std::size_t mapped = 0;
  auto const at = reinterpret_cast<CUdeviceptr>(data_);
  check_driver(Driver::get().address_range(&base, &mapped, at), "size of an opened segment");
  std::size_t const usable = mapped - (at - base);
  require(bytes() > 0 && bytes() <= usable, "size: expected 1 to {} bytes, seen {}", usable, bytes());
}

void IpcSegment::grant(int device) {
  if (device == device_) return;
  cudaError_t const error = cudaDeviceEnablePeerAccess(device_, 0);
  if (error == cudaErrorPeerAccessAlreadyEnabled) {
    static_cast<void>(cudaGetLastError());  // so that the next call does not report it again
    return;
  }
  check_cuda(error, "access of a GPU to another's memory");
}

IpcSegment::~IpcSegment() {
  if (data_ == nullptr) return;
  // Errors (the driver is going down with the process) change nothing any more.
  int before = 0;
  static_cast<void>(cudaGetDevice(&before));
  static_cast<void>(cudaSetDevice(device_));
  static_cast<void>(owned_ ? cudaFree(data_) : cudaIpcCloseMemHandle(data_));
  static_cast<void>(cudaSetDevice(before));
}

}  // namespace switchyard
