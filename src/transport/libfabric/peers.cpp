#include "transport/libfabric/peers.hpp"

#include <utility>

#include "transport/checks.hpp"

namespace switchyard::transport::libfabric {

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
  return peers_[place_of("peer", peer, peers_.size())];
}

PeerState const& Peers::of(Peer peer) const {
  return peers_[place_of("peer", peer, peers_.size())];
}

RemoteRegion const& Peers::region(PeerRegion region, Peer owner) const {
  RemoteRegion const& found = regions_[place_of("region of a peer", region, regions_.size())];
  require(found.owner == owner, "region of a peer: expected one of {}, seen one of {}", of(owner).name,
          of(found.owner).name);
  return found;
}

}  // namespace switchyard::transport::libfabric
