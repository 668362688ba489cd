// Small steps that all sockets of the bootstrap share.
#pragma once

#include <poll.h>

#include <span>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"

namespace switchyard {

// poll() that goes on after a signal. False when the deadline passes first.
bool poll_until(std::span<pollfd> fds, Deadline const& deadline);
bool wait_for(int fd, short events, Deadline const& deadline);

// An eventfd that wakes a thread out of poll().
class Wakeup {
 public:
  Wakeup();
  void signal() noexcept;
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  UniqueFd fd_;
};

}  // namespace switchyard
