// Every wait has a deadline; this is the only clock that waits use.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace switchyard {

// Longer ones are cut to it, so that no sum with the clock overflows.
inline constexpr std::chrono::milliseconds longest_timeout{std::chrono::hours{24}};

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Deadline(std::chrono::milliseconds timeout) : end_(Clock::now() + std::min(timeout, longest_timeout)) {}

  [[nodiscard]] bool expired() const { return Clock::now() >= end_; }
  // Never negative.
  [[nodiscard]] std::chrono::milliseconds remaining() const {
    auto const left = std::chrono::duration_cast<std::chrono::milliseconds>(end_ - Clock::now());
    return std::max(left, std::chrono::milliseconds{0});
  }
  [[nodiscard]] Deadline later_by(std::chrono::milliseconds more) const {
    Deadline later = *this;
    later.end_ += std::min(more, longest_timeout);
    return later;
  }

 private:
  Clock::time_point end_;
};

// CLOCK_MONOTONIC in nanoseconds: comparable between the processes of one machine.
inline std::int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Deadline::Clock::now().time_since_epoch()).count();
}

}  // namespace switchyard
