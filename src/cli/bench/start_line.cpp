#include "cli/bench/start_line.hpp"

#include "base/config.hpp"
#include "base/deadline.hpp"

namespace switchyard::cli {

StartLine::StartLine(Communicator const& communicator, SharedBarrier* barrier, std::chrono::milliseconds timeout)
    : communicator_(communicator),
      barrier_(barrier),
      timeout_(timeout.count() > 0 ? timeout : std::chrono::milliseconds{config_number(Setting::timeout_ms)}) {}

std::int64_t StartLine::align(std::chrono::milliseconds allowance) {
  if (barrier_ != nullptr) return barrier_->wait(communicator_.rank(), timeout_ + allowance);
  communicator_.barrier();
  return monotonic_ns();
}

}  // namespace switchyard::cli
