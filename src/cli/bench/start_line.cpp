#include "cli/bench/start_line.hpp"

#include <sched.h>

#include <algorithm>
#include <cstring>

#include "base/config.hpp"
#include "base/deadline.hpp"
#include "job/job.hpp"

namespace switchyard::cli {

namespace {

// After the last rank has come: what eight ranks on two cores need to leave a meeting.
constexpr std::chrono::nanoseconds time_to_leave{500'000};

}  // namespace

StartLine::StartLine(Communicator const& communicator, Terms const& terms)
    : communicator_(communicator), terms_(terms) {
  if (terms_.timeout.count() == 0) terms_.timeout = std::chrono::milliseconds{config_number(Setting::timeout_ms)};
}

std::int64_t StartLine::align(std::chrono::milliseconds allowance) {
  if (terms_.barrier != nullptr) return terms_.barrier->wait(communicator_.rank(), terms_.timeout + allowance);
  if (terms_.one_clock) return start_together();
  communicator_.barrier();
  return monotonic_ns();
}

std::int64_t StartLine::start_together() {
  std::int64_t const came = monotonic_ns();
  std::int64_t start = came;
  for (auto const& bytes : communicator_.job()->all_gather(std::as_bytes(std::span(&came, 1)))) {
    std::int64_t theirs = 0;
    std::memcpy(&theirs, bytes.data(), std::min(bytes.size(), sizeof theirs));
    start = std::max(start, theirs);
  }
  start += time_to_leave.count();
  while (monotonic_ns() < start) ::sched_yield();  // awake, as in SharedBarrier
  return start;
}

}  // namespace switchyard::cli
