// The control connections of a rank to other nodes: TCP to its rail peers, and to the ranks whose rail peer it is.
// So nobody is connected to all ranks of all nodes, and every node learns when a process ends.
#pragma once

#include <memory>
#include <string>

#include "base/deadline.hpp"
#include "bootstrap/mac.hpp"
#include "bootstrap/store.hpp"
#include "layout/topology.hpp"
#include "node/node.hpp"
#include "node/peer_links.hpp"

namespace switchyard {

// What connections are made from. All of it must outlive connect_rails() only.
struct RailTerms {
  Topology const& topology;
  int rank = 0;
  Node& node;
  Store& store;
  Key const& key;       // shown by both ends of every connection
  std::string address;  // of this machine, where ranks of other nodes reach it
};

// Collective over the job. Throws, the same on every rank of a node: Timeout, which names a rank that did not
// connect and where, PeerLost, InvalidArgument (another token), SystemError.
std::unique_ptr<PeerLinks> connect_rails(RailTerms const& terms, Deadline const& deadline);

}  // namespace switchyard
