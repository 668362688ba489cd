// Which frames of a low-latency buffer were let go of, and not given back yet. Results go on any thread.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "layout/slots.hpp"

namespace switchyard::cuda {

class FrameBook {
 public:
  // A bit per frame: of calls outside of CUDA graphs, and of captured ones.
  struct Frames {
    std::uint32_t eager = 0;
    std::uint32_t captured = 0;
  };

  // A dispatch takes the frame, and gives it back itself first: `number` (not 0) tells its result from earlier
  // ones, that may still be on their way to let_go().
  void begin(int frame, std::uint64_t number) {
    std::lock_guard const lock(mutex_);
    current_[index(frame)] = number;
    clear(1U << frame);
  }
  // `behind_event`: an event says when nobody reads the result any more. What an earlier dispatch left is
  // forgotten.
  void let_go(int frame, std::uint64_t number, bool captured, bool behind_event) {
    std::lock_guard const lock(mutex_);
    if (current_[index(frame)] != number) return;
    std::uint32_t const bit = 1U << frame;
    (captured ? waiting_.captured : waiting_.eager) |= bit;
    if (behind_event) behind_events_ |= bit;
  }

  // For the next call. A captured one takes no eager frames: its replays must not give back what came later.
  Frames take(bool captured) {
    std::lock_guard const lock(mutex_);
    Frames taken = waiting_;
    if (captured) taken.eager = 0;
    waiting_.captured = 0;
    waiting_.eager &= ~taken.eager;
    behind_events_ &= ~taken.eager;
    return taken;
  }
  // Outside of any call: those of `frames` that an event stands for.
  std::uint32_t take_behind_events(std::uint32_t frames) {
    std::lock_guard const lock(mutex_);
    std::uint32_t const taken = waiting_.eager & behind_events_ & frames;
    waiting_.eager &= ~taken;
    behind_events_ &= ~taken;
    return taken;
  }
  // Results of before a reset are void.
  void forget() {
    std::lock_guard const lock(mutex_);
    current_ = {};
    clear(~0U);
  }

 private:
  static std::size_t index(int frame) { return static_cast<std::size_t>(frame); }
  void clear(std::uint32_t frames) {
    waiting_.eager &= ~frames;
    waiting_.captured &= ~frames;
    behind_events_ &= ~frames;
  }

  std::mutex mutex_;
  std::array<std::uint64_t, max_frames> current_{};
  Frames waiting_;
  std::uint32_t behind_events_ = 0;
};

}  // namespace switchyard::cuda
