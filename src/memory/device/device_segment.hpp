// One rank's segment of GPU memory, which other ranks map, in this process and in others.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/refusal.hpp"
#include "memory/gpu_memory_kind.hpp"
#include "memory/segment.hpp"

namespace switchyard {

// Means something to the driver only: a fabric handle or one of CUDA IPC.
using GpuMemoryHandle = std::array<std::byte, 64>;

// What another process needs to map a segment.
struct SharedGpuMemory {
  GpuMemoryKind kind = GpuMemoryKind::fd;
  std::size_t bytes = 0;
  int fd = -1;               // with GpuMemoryKind::fd
  GpuMemoryHandle handle{};  // with the others
};

class DeviceSegment : public Segment {
 public:
  // New memory of `device`; its first `zeroed` bytes are zero when this returns. May be larger than asked for.
  static std::shared_ptr<DeviceSegment> create(GpuMemoryKind kind, int device, std::size_t bytes,
                                               std::size_t zeroed);
  // Maps the memory of another process for `device`. Borrows the descriptor.
  static std::shared_ptr<DeviceSegment> attach(int device, SharedGpuMemory const& memory);
  // The segment that this process created, made accessible to `device`; null when none has the id.
  static std::shared_ptr<DeviceSegment> find_in_process(std::uint64_t id, int device);

  ~DeviceSegment() override;
  DeviceSegment(DeviceSegment const&) = delete;
  DeviceSegment& operator=(DeviceSegment const&) = delete;

  // To hand to peers; a descriptor in it is the segment's own. Of a segment that was created here.
  [[nodiscard]] virtual SharedGpuMemory shared() const = 0;
  // Unique among all processes, random; 0 for an attached segment.
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

 protected:
  explicit DeviceSegment(std::size_t bytes) : Segment(bytes) {}

 private:
  // Lets another GPU of this process use it.
  virtual void grant(int device) = 0;

  std::uint64_t id_ = 0;
};

// Whether `device` can have memory of that kind: tries with the least there is, because attributes of the driver
// promise kinds that it then refuses to make. Nothing when it can.
std::optional<Refusal> try_gpu_memory(GpuMemoryKind kind, int device);

}  // namespace switchyard
