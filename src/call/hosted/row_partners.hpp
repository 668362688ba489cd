// The end of a call of either kind: only ranks that exchange rows wait for one another. In a job of several nodes a
// rank also writes, or reads, the rows of the ranks that it serves.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/trace.hpp"
#include "control/peer_waits.hpp"
#include "layout/routing.hpp"

namespace switchyard {

// Whether this rank, for itself or for one that it serves, has rows in the result of a rank of its node.
inline bool has_rows_at(Link const& link, detail::Routing const& routing, int peer) {
  return routing.sends_to(link.job.rank_of(peer)) ||
         std::ranges::any_of(routing.served, [peer](scale_out::ServedTokens const& each) {
           return each.counts.rows[static_cast<std::size_t>(peer)] > 0;
         });
}

// The same, seen from the rank that has the result.
inline bool has_rows_of(Link const& link, detail::Routing const& routing, int peer) {
  return std::ranges::any_of(link.job.served().of(peer), [&](int rank) { return routing.receives_from(rank); });
}

// Raises a flag at every rank that this one has rows at, and waits for the flags of all ranks that have rows here.
// Over nodes all of its node get the flag: it says that this rank has ended the call, and may go. Throws what
// Signals::wait() throws.
inline void meet_row_partners(Link const& link, detail::Routing const& routing,
                              Flag& (ControlArea::*flag)(int owner, int writer) const, std::uint64_t epoch,
                              char const* phase) {
  TraceScope const span(phase, link.rank);
  for (int peer = 0; peer < link.num_ranks; ++peer) {
    if (!link.job.is_alone() || has_rows_at(link, routing, peer))
      link.signals.publish(peer, (link.control.*flag)(peer, link.rank).epoch, epoch);  // pairs with the wait below
  }
  await_peers(link, epoch, phase, [&](int peer) {
    return has_rows_of(link, routing, peer) ? &(link.control.*flag)(link.rank, peer).epoch : nullptr;
  });
}

}  // namespace switchyard
