#include "transport/libfabric/peers.hpp"

#include <utility>

#include "base/check.hpp"

namespace switchyard::transport::libfabric {

namespace {

template <typename Number, typename T>
std::size_t index_in(std::vector<T> const& known, Number number, char const* what) {
  auto const index = static_cast<std::int32_t>(number);
  require(index >= 0 && static_cast<std::size_t>(index) < known.size(),
          "{}: expected one of {} that were added, seen {}", what, known.size(), index);
  return static_cast<std::size_t>(index);
}

}  // namespace

Peer Peers::add(PeerState state) {
  peers_.push_back(std::move(state));
  return static_cast<Peer>(peers_.size() - 1);
}

PeerRegion Peers::add_region(Peer owner, RegionKey key) {
  (void)of(owner);
  regions_.push_back({owner, std::move(key)});
  return static_cast<PeerRegion>(regions_.size() - 1);
}

PeerState& Peers::of(Peer peer) {
  return peers_[index_in(peers_, peer, "peer")];
}

PeerState const& Peers::of(Peer peer) const {
  return peers_[index_in(peers_, peer, "peer")];
}

RemoteRegion const& Peers::region(PeerRegion region, Peer owner) const {
  RemoteRegion const& found = regions_[index_in(regions_, region, "region of a peer")];
  require(found.owner == owner, "region of a peer: expected one of {}, seen one of {}", of(owner).name,
          of(found.owner).name);
  return found;
}

}  // namespace switchyard::transport::libfabric
