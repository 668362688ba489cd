#include "engine/cuda/host/watchdog.hpp"

#include <pthread.h>

#include <chrono>

namespace switchyard::cuda {

namespace {

constexpr std::chrono::milliseconds interval{10};

}  // namespace

Watchdog::Watchdog(std::function<void()> look)
    : thread_([this, look = std::move(look)] {
        std::unique_lock lock(mutex_);
        while (!changed_.wait_for(lock, interval, [this] { return stop_; })) look();
      }) {
  pthread_setname_np(thread_.native_handle(), "sy-watchdog");
}

Watchdog::~Watchdog() {
  {
    std::lock_guard const lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

}  // namespace switchyard::cuda
