// One rank's segment of GPU memory, handed to the other ranks as a file descriptor (cuMemCreate).
#pragma once

#include <cstdint>
#include <memory>

#include "base/unique_fd.hpp"
#include "memory/device/driver.hpp"
#include "memory/segment.hpp"

namespace switchyard {

class DeviceSegment final : public Segment {
 public:
  // New memory of `device`; its first `zeroed` bytes are zero when this returns.
  static std::shared_ptr<DeviceSegment> create(int device, std::size_t bytes, std::size_t zeroed);
  // Maps a peer's memory for `device`.
  static std::shared_ptr<DeviceSegment> attach(int device, UniqueFd const& fd, std::size_t bytes);
  // The segment that this process created, made accessible to `device`; null when none has the id.
  static std::shared_ptr<DeviceSegment> find_in_process(std::uint64_t id, int device);

  ~DeviceSegment() override;
  DeviceSegment(DeviceSegment const&) = delete;
  DeviceSegment& operator=(DeviceSegment const&) = delete;

  // To hand to peers; owned by the segment that was created here, -1 otherwise.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // Unique among all processes, random; 0 for an attached segment.
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

 private:
  explicit DeviceSegment(std::size_t bytes) : Segment(bytes) {}
  void map();
  void grant(int device);

  CUmemGenericAllocationHandle memory_ = 0;
  bool has_memory_ = false;
  bool mapped_ = false;
  UniqueFd fd_;
  std::uint64_t id_ = 0;
};

}  // namespace switchyard
