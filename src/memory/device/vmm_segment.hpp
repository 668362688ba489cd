// GPU memory from cuMemCreate. It lives until the last process unmaps it.
#pragma once

#include <mutex>
#include <set>

#include "base/unique_fd.hpp"
#include "memory/device/device_segment.hpp"
#include "memory/device/driver.hpp"

namespace switchyard {

class VmmSegment final : public DeviceSegment {
 public:
  // `kind` says how it is handed over: fd or fabric.
  static std::shared_ptr<DeviceSegment> create(GpuMemoryKind kind, int device, std::size_t bytes);
  static std::shared_ptr<DeviceSegment> attach(int device, SharedGpuMemory const& memory);
  ~VmmSegment() override;
  VmmSegment(VmmSegment const&) = delete;
  VmmSegment& operator=(VmmSegment const&) = delete;

  [[nodiscard]] SharedGpuMemory shared() const override {
    return {.kind = kind_, .bytes = bytes(), .fd = fd_.get(), .handle = handle_};
  }

 private:
  VmmSegment(GpuMemoryKind kind, std::size_t bytes) : DeviceSegment(bytes), kind_(kind) {}
  void export_handle();
  void import_from(SharedGpuMemory const& memory);
  void map();
  void grant(int device) override;

  GpuMemoryKind kind_;
  CUmemGenericAllocationHandle memory_ = 0;
  bool has_memory_ = false;
  bool mapped_ = false;
  std::mutex granting_;
  std::set<int> granted_;  // GPUs that have access
  UniqueFd fd_;
  GpuMemoryHandle handle_{};
};

}  // namespace switchyard
