// A thread that tells waiting kernels what the host learns (a peer has ended; another rank has failed), and other
// ranks what a kernel found.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace switchyard::cuda {

class Watchdog {
 public:
  // `look` is called every few milliseconds until this goes. It must not throw.
  explicit Watchdog(std::function<void()> look);
  ~Watchdog();
  Watchdog(Watchdog const&) = delete;
  Watchdog& operator=(Watchdog const&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace switchyard::cuda
