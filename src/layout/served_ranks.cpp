#include "layout/served_ranks.hpp"

#include <algorithm>

namespace switchyard {

ServedRanks::ServedRanks(Topology const& topology, int node)
    : by_local_(static_cast<std::size_t>(topology.num_ranks_of(node))),
      places_(static_cast<std::size_t>(topology.num_ranks())) {
  for (int const rank : topology.ranks_of(node))
    by_local_[static_cast<std::size_t>(topology.local_rank_of(rank))].push_back(rank);
  for (int rank = 0; rank < topology.num_ranks(); ++rank) {
    bool const ours = topology.node_of(rank) == node;
    int const local = topology.local_rank_of(ours ? rank : topology.rail_peer(rank, node));
    auto& served = by_local_[static_cast<std::size_t>(local)];
    if (!ours) served.push_back(rank);
    places_[static_cast<std::size_t>(rank)] = {.local_rank = local,
                                               .index = ours ? 0 : static_cast<int>(served.size()) - 1};
    most_ = std::max(most_, static_cast<int>(served.size()));
  }
}

}  // namespace switchyard
