// Which frames of a low-latency buffer the host has released and no kernel has given back yet. Any thread may
// release a result.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "layout/slots.hpp"

namespace switchyard::cuda {

class FrameTracker {
 public:
  // A bit for each frame: of results of calls outside of CUDA graphs, and of captured calls.
  struct Frames {
    std::uint32_t eager = 0;
    std::uint32_t captured = 0;
  };

  // A dispatch takes the frame, and itself gives it back first. `number`, which is not 0, is that of its result:
  // results of earlier dispatches may still be on their way to release().
  void begin(int frame, std::uint64_t number) {
    std::lock_guard const lock(mutex_);
    current_[index(frame)] = number;
    clear(1U << frame);
  }
  // `behind_event` says that an event stands for the last work that reads the result. A result of an earlier
  // dispatch is ignored.
  void release(int frame, std::uint64_t number, bool captured, bool behind_event) {
    std::lock_guard const lock(mutex_);
    if (current_[index(frame)] != number) return;
    std::uint32_t const bit = 1U << frame;
    (captured ? released_.captured : released_.eager) |= bit;
    if (behind_event) behind_events_ |= bit;
  }

  // The frames that the next call gives back. A captured call takes no eager frames, because its replays must not
  // give back what came later.
  Frames take(bool captured) {
    std::lock_guard const lock(mutex_);
    Frames taken = released_;
    if (captured) taken.eager = 0;
    released_.captured = 0;
    released_.eager &= ~taken.eager;
    behind_events_ &= ~taken.eager;
    return taken;
  }
  // Those of `frames` for which an event stands, to be given back outside of any call.
  std::uint32_t take_behind_events(std::uint32_t frames) {
    std::lock_guard const lock(mutex_);
    std::uint32_t const taken = released_.eager & behind_events_ & frames;
    released_.eager &= ~taken;
    behind_events_ &= ~taken;
    return taken;
  }
  // A reset makes all results before it void.
  void forget() {
    std::lock_guard const lock(mutex_);
    current_ = {};
    clear(~0U);
  }

 private:
  static std::size_t index(int frame) { return static_cast<std::size_t>(frame); }
  void clear(std::uint32_t frames) {
    released_.eager &= ~frames;
    released_.captured &= ~frames;
    behind_events_ &= ~frames;
  }

  std::mutex mutex_;
  std::array<std::uint64_t, max_frames> current_{};  // number of the latest dispatch into each frame
  Frames released_;
  std::uint32_t behind_events_ = 0;
};

}  // namespace switchyard::cuda
