#include "layout/scale_out/node_experts.hpp"

#include "base/check.hpp"

namespace switchyard::scale_out {

namespace {

constexpr int max_node_experts = 1 << 16;

}  // namespace

NodeExperts::NodeExperts(Topology const& topology, ExpertSplit const& experts, int node) : firsts_{0} {
  for (int const rank : topology.ranks_of(node)) {
    auto const local_rank = static_cast<std::uint8_t>(topology.local_rank_of(rank));
    firsts_.push_back(firsts_.back() + experts.count(rank));
    ranks_.insert(ranks_.end(), static_cast<std::size_t>(experts.count(rank)), local_rank);
  }
  require(count() <= max_node_experts, "experts of node {}: expected at most {}, seen {}", node, max_node_experts,
          count());
}

std::vector<NodeExperts> experts_by_node(Topology const& topology, ExpertSplit const& experts) {
  std::vector<NodeExperts> all;
  for (int node = 0; node < topology.num_nodes(); ++node) all.emplace_back(topology, experts, node);
  return all;
}

}  // namespace switchyard::scale_out
