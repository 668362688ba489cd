#include "control/peer_waits.hpp"

#include "base/deadline.hpp"

namespace switchyard {

void await_counted(Link const& link, std::vector<PeerFlag> flags, std::uint64_t epoch, char const* phase) {
  std::int64_t const begin = monotonic_ns();
  // Removes those that are up. Acquire: pairs with the release store in Signals::publish().
  auto const look = [&] {
    std::erase_if(flags, [&](PeerFlag const& each) {
      if (each.flag->load(std::memory_order_acquire) < epoch) return false;
      link.wait_ns[static_cast<std::size_t>(link.job.rank_of(each.peer))] += monotonic_ns() - begin;
      return true;
    });
    return flags.size();
  };
  Deadline const deadline = link.signals.deadline();
  while (look() > 0) {
    PeerFlag const first = flags.front();
    std::size_t const before = flags.size();
    WaitResult const result = link.signals.await(
        first.peer, [&] { return look() < before; }, deadline);
    // Relaxed: the value only goes into a text.
    if (result != WaitResult::arrived)
      link.signals.fail_awaiting(result, {first.peer, epoch, phase}, first.flag->load(std::memory_order_relaxed));
  }
}

}  // namespace switchyard
