#include "bootstrap/socket.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <cstdint>

#include "base/check.hpp"

namespace switchyard {

bool poll_until(std::span<pollfd> fds, Deadline const& deadline) {
  for (;;) {
    auto const left = std::min<std::chrono::milliseconds::rep>(deadline.remaining().count(), 3'600'000);
    int const ready = ::poll(fds.data(), fds.size(), static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) throw_errno("poll");
    if (deadline.expired()) return false;
  }
}

bool wait_for(int fd, short events, Deadline const& deadline) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  return poll_until({&entry, 1}, deadline);
}

Wakeup::Wakeup() : fd_(check_call(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")) {}

void Wakeup::signal() noexcept {
  std::uint64_t const one = 1;
  // Fails only when the counter is full, and then the reader is awake anyway.
  [[maybe_unused]] auto const written = ::write(fd_.get(), &one, sizeof one);
}

}  // namespace switchyard
