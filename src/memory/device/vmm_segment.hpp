// GPU memory from cuMemCreate. It lives until the last process unmaps it, and grows by parts that are mapped one
// behind the other.
#pragma once

#include <mutex>
#include <set>
#include <vector>

#include "base/unique_fd.hpp"
#include "memory/device/device_segment.hpp"
#include "memory/device/driver.hpp"

namespace switchyard {

class VmmSegment final : public DeviceSegment {
 public:
  // `kind` says how it is handed over: fd or fabric.
  static std::shared_ptr<DeviceSegment> create(GpuMemoryKind kind, int device, std::size_t bytes,
                                               std::size_t capacity);
  static std::shared_ptr<DeviceSegment> attach(int device, SharedGpuMemory const& memory);
  ~VmmSegment() override;
  VmmSegment(VmmSegment const&) = delete;
  VmmSegment& operator=(VmmSegment const&) = delete;

  [[nodiscard]] SharedGpuMemory shared() const override {
    return {.kind = kind_,
            .bytes = first_.bytes,
            .capacity = capacity(),
            .fd = first_.fd.get(),
            .handle = first_.handle};
  }

  SegmentPart grow(std::size_t bytes) override;
  void append(SegmentPart const& part) override;
  void shrink(std::size_t bytes) override;

 private:
  using Memory = CUmemGenericAllocationHandle;
  struct Mapped {
    Memory memory = 0;
    std::size_t offset = 0;
    std::size_t bytes = 0;
  };

  VmmSegment(GpuMemoryKind kind, int device, std::size_t capacity);
  [[nodiscard]] SegmentPart exported(Memory memory, std::size_t offset, std::size_t bytes) const;
  [[nodiscard]] Memory import_from(SegmentPart const& part) const;
  SegmentPart add_new(std::size_t bytes);
  void add(Memory memory, std::size_t offset, std::size_t bytes);
  void unmap(Mapped const& part) noexcept;
  void allow(int device, Mapped const& part);
  void grant(int device) override;
  [[nodiscard]] CUdeviceptr address() const noexcept { return reinterpret_cast<CUdeviceptr>(data_); }

  GpuMemoryKind kind_;
  int device_;
  std::mutex changing_;  // guards what follows
  std::vector<Mapped> parts_;
  std::set<int> granted_;  // GPUs that have access
  SegmentPart first_;
};

}  // namespace switchyard
