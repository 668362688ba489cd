#include "cli/bench/progress.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace switchyard::cli {

Progress::Progress(bool wanted, int steps)
    : shown_(wanted && ::isatty(STDERR_FILENO) == 1), steps_(std::max(steps, 1)) {}

Progress::~Progress() {
  if (shown_) clear();
}

void Progress::step(std::string const& what) {
  if (!shown_) return;
  constexpr int width = 30;
  done_ = std::min(done_ + 1, steps_);
  int const filled = static_cast<int>(static_cast<long>(width) * done_ / steps_);
  clear();
  fmt::print(stderr, "\r[{:#<{}}{:.<{}}] {:3}% {}", "", filled, "", width - filled, done_ * 100 / steps_, what);
  std::fflush(stderr);
}

void Progress::clear() const {
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
}

}  // namespace switchyard::cli
