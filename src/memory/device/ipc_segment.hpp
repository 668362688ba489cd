// GPU memory from cudaMalloc, handed over by CUDA IPC, for machines where cuMemCreate cannot share. The memory goes
// with its owner, so ranks should release a buffer together. A process cannot open its own handles. It does not
// grow, because the driver chooses the addresses.
#pragma once

#include "memory/device/device_segment.hpp"

namespace switchyard {

class IpcSegment final : public DeviceSegment {
 public:
  static std::shared_ptr<DeviceSegment> create(int device, std::size_t bytes);
  static std::shared_ptr<DeviceSegment> attach(int device, SharedGpuMemory const& memory);
  ~IpcSegment() override;
  IpcSegment(IpcSegment const&) = delete;
  IpcSegment& operator=(IpcSegment const&) = delete;

  [[nodiscard]] SharedGpuMemory shared() const override {
    return {.kind = GpuMemoryKind::ipc, .bytes = bytes(), .capacity = capacity(), .fd = -1, .handle = handle_};
  }

 private:
  IpcSegment(int device, std::size_t bytes, bool owned)
      : DeviceSegment(bytes, bytes), device_(device), owned_(owned) {}
  void grant(int device) override;
  void check_range() const;

  int device_;  // the GPU whose memory it is, or for which it was opened
  bool owned_;
  GpuMemoryHandle handle_{};
};

}  // namespace switchyard
