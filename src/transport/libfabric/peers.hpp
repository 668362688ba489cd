// Who an endpoint knows, and which of their regions.
#pragma once

#include <rdma/fabric.h>

#include <string>
#include <vector>

#include "transport/libfabric/wire.hpp"
#include "transport/transport.hpp"

namespace switchyard::transport::libfabric {

struct PeerState {
  fi_addr_t entry = FI_ADDR_NOTAVAIL;
  std::string name;
  bool lost = false;
  std::string reason;  // of its last failure
};

struct RemoteRegion {
  Peer owner{};
  RegionKey key;
};

class Peers {
 public:
  Peer add(PeerState state);
  PeerRegion add_region(Peer owner, RegionKey key);

  // Throws InvalidArgument for one that was never added.
  [[nodiscard]] PeerState& of(Peer peer);
  [[nodiscard]] PeerState const& of(Peer peer) const;
  // Throws InvalidArgument, too, when it is another peer's.
  [[nodiscard]] RemoteRegion const& region(PeerRegion region, Peer owner) const;

 private:
  std::vector<PeerState> peers_;
  std::vector<RemoteRegion> regions_;
};

}  // namespace switchyard::transport::libfabric
