// Waits for flags of several peers, one after the other; with counting on, it is seen of each when it came.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "control/announce.hpp"

namespace switchyard {

// A flag in the own control block, which a peer raises.
struct PeerFlag {
  int peer = 0;  // local rank
  std::atomic<std::uint64_t> const* flag = nullptr;
};

// Adds to link.wait_ns how long each of them was waited for.
void await_counted(Link const& link, std::vector<PeerFlag> flags, std::uint64_t epoch, char const* phase);

// `flag_of(peer)`: the flag that is awaited, or null where none is. Throws what Signals::wait() throws.
template <typename FlagOf>
void await_peers(Link const& link, std::uint64_t epoch, char const* phase, FlagOf const& flag_of) {
  if (!link.wait_ns.empty()) {
    std::vector<PeerFlag> flags;
    for (int peer = 0; peer < link.num_ranks; ++peer)
      if (auto const* const flag = flag_of(peer)) flags.push_back({peer, flag});
    return await_counted(link, std::move(flags), epoch, phase);
  }
  Deadline const deadline = link.signals.deadline();
  for (int peer = 0; peer < link.num_ranks; ++peer)
    if (auto const* const flag = flag_of(peer)) link.signals.wait(*flag, {peer, epoch, phase}, deadline);
}

}  // namespace switchyard
