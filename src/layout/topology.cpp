#include "layout/topology.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace switchyard {

Topology::Topology(std::vector<int> const& node_sizes) : first_ranks_{0} {
  require(!node_sizes.empty(), "nodes: expected 1 or more, seen none");
  for (int const size : node_sizes) {
    require(size >= 1 && size <= max_node_ranks, "ranks of a node: expected 1..{}, seen {}", max_node_ranks, size);
    require(size <= max_ranks - num_ranks(), "ranks of a job: expected at most {}, seen more", max_ranks);
    first_ranks_.push_back(num_ranks() + size);
  }
}

int Topology::node_of(int rank) const noexcept {
  return static_cast<int>(std::ranges::upper_bound(first_ranks_, rank) - first_ranks_.begin()) - 1;
}

}  // namespace switchyard
