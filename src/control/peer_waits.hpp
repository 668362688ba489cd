// Waits for flags of several peers, one after the other; with counting on, it is seen of each when it came.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "control/announce.hpp"

namespace switchyard {

// A flag in the own control block, which a peer raises.
struct PeerFlag {
  int peer = 0;  // local rank
  std::atomic<std::uint64_t> const* flag = nullptr;
};

[[nodiscard]] inline bool is_up(PeerFlag const& each, std::uint64_t epoch) noexcept {
  return each.flag->load(std::memory_order_acquire) >= epoch;  // pairs with the release store in Signals::publish()
}

// Adds to link.wait_ns how long each of them was waited for. `missing`: those that were not up just now.
void await_counted(Link const& link, std::vector<PeerFlag> missing, std::uint64_t epoch, char const* phase);

// `flag_of(peer)`: the flag that is awaited, or null where none is. Throws what Signals::wait() throws.
template <typename FlagOf>
void await_peers(Link const& link, std::uint64_t epoch, char const* phase, FlagOf const& flag_of) {
  if (!link.wait_ns.empty()) {
    std::vector<PeerFlag> missing;
    for (int peer = 0; peer < link.num_ranks; ++peer) {
      PeerFlag const each{peer, flag_of(peer)};
      if (each.flag != nullptr && !is_up(each, epoch)) missing.push_back(each);
    }
    if (!missing.empty()) await_counted(link, std::move(missing), epoch, phase);
    return;
  }
  Deadline const deadline = link.signals.deadline();
  for (int peer = 0; peer < link.num_ranks; ++peer)
    if (auto const* const flag = flag_of(peer)) link.signals.wait(*flag, {peer, epoch, phase}, deadline);
}

}  // namespace switchyard
