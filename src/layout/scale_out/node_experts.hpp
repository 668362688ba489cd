// The experts of one node, numbered in the order of its ranks, then of their local experts. What crosses between
// nodes names experts so: 16 bits are enough, and whoever receives it needs no numbers of the job.
#pragma once

#include <cstdint>
#include <vector>

#include "layout/experts.hpp"
#include "layout/topology.hpp"

namespace switchyard::scale_out {

class NodeExperts {
 public:
  // Throws InvalidArgument when the node has more experts than 16 bits can number.
  NodeExperts(Topology const& topology, ExpertSplit const& experts, int node);

  [[nodiscard]] int num_ranks() const noexcept { return static_cast<int>(firsts_.size()) - 1; }
  [[nodiscard]] int count() const noexcept { return firsts_.back(); }
  // The number of a local rank's first expert; of the local rank behind the last one, count().
  [[nodiscard]] int first(int local_rank) const noexcept { return firsts_[static_cast<std::size_t>(local_rank)]; }
  [[nodiscard]] int local_rank_of(int expert) const noexcept { return ranks_[static_cast<std::size_t>(expert)]; }

 private:
  std::vector<int> firsts_;          // by local rank; then the number of all
  std::vector<std::uint8_t> ranks_;  // by expert, its local rank
};

// Those of all nodes of the job, by node.
std::vector<NodeExperts> experts_by_node(Topology const& topology, ExpertSplit const& experts);

}  // namespace switchyard::scale_out
