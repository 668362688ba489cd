// The end of a call of either kind: only ranks that exchange rows signal one another, and wait for one another. In
// a job of several nodes all ranks of a node do, since each may have passed on rows of any other.
#pragma once

#include <cstdint>

#include "base/trace.hpp"
#include "control/announce.hpp"
#include "layout/routing.hpp"

namespace switchyard {

// Raises a flag at every rank that this one's tokens have rows at, and waits for the flags of all ranks whose
// tokens have rows here. Throws what Signals::wait() throws.
inline void meet_row_partners(Link const& link, detail::Routing const& routing,
                              Flag& (ControlArea::*flag)(int owner, int writer) const, std::uint64_t epoch,
                              char const* phase) {
  TraceScope const span(phase, link.rank);
  for (int peer = 0; peer < link.num_ranks; ++peer) {
    if (!link.job.is_alone() || routing.sends_to(peer))
      link.signals.publish(peer, (link.control.*flag)(peer, link.rank).epoch, epoch);  // pairs with the wait below
  }
  Deadline const deadline = link.signals.deadline();
  for (int peer = 0; peer < link.num_ranks; ++peer) {
    if (!link.job.is_alone() || routing.receives_from(peer))
      link.signals.wait((link.control.*flag)(link.rank, peer).epoch, {peer, epoch, phase}, deadline);
  }
}

}  // namespace switchyard
