// How a node stands in its job: which ranks are its own, and who of them serves which ranks of other nodes.
#pragma once

#include <utility>

#include "layout/served_ranks.hpp"
#include "layout/topology.hpp"

namespace switchyard {

class NodeInJob {
 public:
  NodeInJob(Topology topology, int node) : topology_(std::move(topology)), node_(node), served_(topology_, node) {}

  [[nodiscard]] Topology const& topology() const noexcept { return topology_; }
  [[nodiscard]] int node() const noexcept { return node_; }
  [[nodiscard]] ServedRanks const& served() const noexcept { return served_; }
  [[nodiscard]] int num_ranks() const noexcept { return topology_.num_ranks(); }  // of the job
  [[nodiscard]] bool is_alone() const noexcept { return topology_.num_nodes() == 1; }
  // The number in the job of a rank of this node.
  [[nodiscard]] int rank_of(int local_rank) const noexcept { return topology_.rank_of(node_, local_rank); }
  [[nodiscard]] bool has(int rank) const noexcept { return topology_.node_of(rank) == node_; }

 private:
  Topology topology_;
  int node_;
  ServedRanks served_;
};

}  // namespace switchyard
