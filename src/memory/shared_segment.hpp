// One rank's segment of shared memory: a sealed memfd, mapped by every rank of the node. It has no name, so
// nothing is left behind when a rank crashes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/unique_fd.hpp"
#include "memory/segment.hpp"

namespace switchyard {

class SharedSegment final : public Segment {
 public:
  // A new segment, zeroed. Pages are taken when they are first written.
  static std::shared_ptr<SharedSegment> create(std::size_t bytes);
  // Maps a peer's segment. Throws InvalidArgument when the descriptor is no sealed memfd of `bytes` bytes.
  static std::shared_ptr<SharedSegment> attach(UniqueFd fd, std::size_t bytes);
  // The segment that this process created (ranks that are threads share one mapping); null when none has the id.
  static std::shared_ptr<SharedSegment> find_in_process(std::uint64_t id);

  ~SharedSegment() override;
  SharedSegment(SharedSegment const&) = delete;
  SharedSegment& operator=(SharedSegment const&) = delete;

  // -1 for an attached segment.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // Unique among all processes, random; 0 for an attached segment.
  [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
  // What was had of what was asked for.
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
