// How a rank that must not sleep on its doorbell passes the time between two looks: awake at first, then in naps
// that are short enough for what other nodes send meanwhile.
#pragma once

#include <sched.h>

#include <chrono>
#include <ctime>

#include "base/deadline.hpp"

namespace switchyard {

class Idling {
 public:
  void rest() noexcept {
    if (++turns_ < awake_turns || Deadline::Clock::now() < awake_until_) {
      ::sched_yield();
      return;
    }
    timespec const nap{.tv_sec = 0, .tv_nsec = 50'000};
    ::nanosleep(&nap, nullptr);
  }

 private:
  // With fewer cores than ranks a turn may take as long as others want to run.
  static constexpr int awake_turns = 64;

  int turns_ = 0;
  Deadline::Clock::time_point awake_until_ = Deadline::Clock::now() + std::chrono::microseconds{100};
};

}  // namespace switchyard
