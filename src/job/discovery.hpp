// Finds out which ranks of a job share a node, and tells all of them.
#pragma once

#include <string>

#include "base/deadline.hpp"
#include "bootstrap/store.hpp"
#include "layout/topology.hpp"

namespace switchyard {

// A name of a node has so many bytes at most.
inline constexpr std::size_t max_node_name = 63;

struct WhoAndWhere {
  int rank = 0;
  int size = 1;
  // Ranks that give the same name share a node, whose ranks must be able to; ranks without one share a node where
  // they can: they run on one machine, in one network namespace (in which they find each other's sockets), as one
  // user.
  std::string node{};
};

// Collective over the job, through the store: every rank says where it is, and rank 0 numbers the nodes, in the
// order of their first ranks. So nobody but rank 0 reads what all ranks say. Throws, on every rank, Timeout, which
// names a rank that did not come, or InvalidArgument when ranks disagree on the number of ranks, or a node has too
// many.
Topology discover_nodes(Store& store, WhoAndWhere const& self, Deadline const& deadline);

}  // namespace switchyard
