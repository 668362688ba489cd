// Builds the mesh of Unix sockets between the ranks of a node.
//
// Every rank listens in the abstract namespace, so nothing lies on disk, and publishes the name through the store.
// Rank i connects to every j < i. A connection is taken for rank i's only when it comes from our user (or root) and
// shows the secret that rank 0 has published; anything else is closed, with a line in the log.
#pragma once

#include <vector>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/store.hpp"
#include "node/node.hpp"

namespace switchyard {

// Collective. Returns a non-blocking socket to every other rank, none in the own slot. Throws Timeout (which names
// the rank that did not come), PeerLost (a rank came and went), Unsupported (a rank is on another host) or
// InvalidArgument (ranks disagree on how many they are).
std::vector<UniqueFd> connect_mesh(Store& store, NodeMembers const& members, int rank, Deadline const& deadline);

}  // namespace switchyard
