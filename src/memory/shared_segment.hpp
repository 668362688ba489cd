// One rank's segment of shared memory: a sealed memfd that every rank of the node maps. It has no name, so nothing
// is left behind when a rank crashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/unique_fd.hpp"
#include "memory/segment.hpp"

namespace switchyard {

class SharedSegment final : public Segment {
 public:
  // Makes a new segment, which is zero. Pages are taken when they are first written.
  static std::shared_ptr<SharedSegment> create(std::size_t bytes);
  // Maps a peer's segment. Throws InvalidArgument when the descriptor is not that of a sealed memfd of `bytes`
  // bytes.
  static std::shared_ptr<SharedSegment> attach(UniqueFd fd, std::size_t bytes);
  // Returns the segment of that id if this process has created it, null otherwise.
  static std::shared_ptr<SharedSegment> find_in_process(std::uint64_t id);

  ~SharedSegment() override;
  SharedSegment(SharedSegment const&) = delete;
  SharedSegment& operator=(SharedSegment const&) = delete;

  // -1 for an attached segment.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // Unique among all processes, random; 0 for an attached segment.
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  void discard(std::size_t offset, std::size_t bytes) override;

  // Whether the kernel gave what was asked for.
  [[nodiscard]] bool huge_pages() const noexcept { return huge_pages_; }
  [[nodiscard]] bool numa_bound() const noexcept { return numa_bound_; }

 private:
  SharedSegment(UniqueFd fd, std::size_t bytes);

  UniqueFd fd_;
  std::uint64_t id_ = 0;
  bool huge_pages_ = false;
  bool numa_bound_ = false;
};

}  // namespace switchyard
