// One rank's segment of GPU memory, which other ranks map, in this process and in others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/refusal.hpp"
#include "memory/gpu_memory_kind.hpp"
#include "memory/segment.hpp"

namespace switchyard {

// What another process needs to map a segment.
struct SharedGpuMemory {
  GpuMemoryKind kind = GpuMemoryKind::fd;
  std::size_t bytes = 0;
  std::size_t capacity = 0;  // of the segment; where segments do not grow, its bytes
  int fd = -1;               // with GpuMemoryKind::fd
  GpuMemoryHandle handle{};  // with the others
};

struct DeviceSegmentSizes {
  std::size_t bytes = 0;
  std::size_t zeroed = 0;    // of these, from the beginning on: zero when the segment is made
  std::size_t capacity = 0;  // to which it may grow, where its kind of memory can; 0: it does not
};

class DeviceSegment : public Segment {
 public:
  // Makes new memory of `device`. It may be larger than asked for.
  static std::shared_ptr<DeviceSegment> create(GpuMemoryKind kind, int device, DeviceSegmentSizes const& sizes);
  // Maps the memory of another process for `device`. The caller keeps the descriptor.
  static std::shared_ptr<DeviceSegment> attach(int device, SharedGpuMemory const& memory);
  // Returns the segment of that id if this process has created it, and makes it accessible to `device`; null
  // otherwise.
  static std::shared_ptr<DeviceSegment> find_in_process(std::uint64_t id, int device);

  ~DeviceSegment() override;
  DeviceSegment(DeviceSegment const&) = delete;
  DeviceSegment& operator=(DeviceSegment const&) = delete;

  // What peers need. A descriptor in it stays the segment's own. Only for a segment that was created here.
  [[nodiscard]] virtual SharedGpuMemory shared() const = 0;
  // Unique among all processes, random; 0 for an attached segment.
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

 protected:
  DeviceSegment(std::size_t bytes, std::size_t capacity) : Segment(bytes, capacity) {}

 private:
  // Makes it accessible to another GPU of this process.
  virtual void grant(int device) = 0;

  std::uint64_t id_ = 0;
};

// Tries whether `device` can have memory of that kind; returns nothing when it can. It makes the least there is,
// because the driver's attributes promise kinds that it then refuses to make.
std::optional<Refusal> try_gpu_memory(GpuMemoryKind kind, int device);

}  // namespace switchyard
