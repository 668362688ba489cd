// The segments that this process created, by id: ranks that are threads of one process find each other's here and
// share one mapping.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>

#include "base/random.hpp"

namespace switchyard {

// One registry for each kind of segment. Any thread may call it.
template <typename SegmentKind>
class SegmentRegistry {
 public:
  static SegmentRegistry& instance() {
    // Never destroyed: a tensor in a static variable may release its segment after every other static is gone.
    static SegmentRegistry& registry = *new SegmentRegistry;
    return registry;
  }

  // Returns the id under which the segment can be found: random, unique among all processes, never 0.
  std::uint64_t add(std::shared_ptr<SegmentKind> const& segment) {
    std::uint64_t id = 0;
    while (id == 0) fill_random(std::as_writable_bytes(std::span(&id, 1)));
    std::lock_guard const lock(mutex_);
    segments_[id] = segment;
    return id;
  }

  // Null when no living segment of this process has the id.
  [[nodiscard]] std::shared_ptr<SegmentKind> find(std::uint64_t id) {
    std::lock_guard const lock(mutex_);
    auto const found = segments_.find(id);
    return found == segments_.end() ? nullptr : found->second.lock();
  }

  void remove(std::uint64_t id) noexcept {
    std::lock_guard const lock(mutex_);
    segments_.erase(id);
  }

 private:
  SegmentRegistry() = default;

  std::mutex mutex_;
  std::map<std::uint64_t, std::weak_ptr<SegmentKind>> segments_;
};

}  // namespace switchyard
