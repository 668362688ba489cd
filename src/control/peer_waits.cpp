#include "control/peer_waits.hpp"

#include "base/deadline.hpp"

namespace switchyard {

void await_counted(Link const& link, std::vector<PeerFlag> missing, std::uint64_t epoch, char const* phase) {
  std::int64_t const begin = monotonic_ns();
  // Removes those that are up. The clock is read once a look, and only if there is anything to note: where ranks
  // are more than cores, all of them pay for it.
  auto const look = [&] {
    std::int64_t now = 0;
    std::erase_if(missing, [&](PeerFlag const& each) {
      if (!is_up(each, epoch)) return false;
      if (now == 0) now = monotonic_ns();
      link.wait_ns[static_cast<std::size_t>(link.job.rank_of(each.peer))] += now - begin;
      return true;
    });
    return missing.size();
  };
  Deadline const deadline = link.signals.deadline();
  while (!missing.empty()) {
    PeerFlag const first = missing.front();
    std::size_t const before = missing.size();
    WaitResult const result = link.signals.await(
        first.peer, [&] { return look() < before; }, deadline);
    // Relaxed: the value only goes into a text.
    if (result != WaitResult::arrived)
      link.signals.fail_awaiting(result, {first.peer, epoch, phase}, first.flag->load(std::memory_order_relaxed));
  }
}

}  // namespace switchyard
