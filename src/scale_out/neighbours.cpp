#include "scale_out/neighbours.hpp"

#include <algorithm>

namespace switchyard::scale_out {

std::vector<Neighbour> neighbours_of(Topology const& topology, int rank) {
  std::vector<Neighbour> found;
  for (int const other : topology.rail_neighbours_of(rank)) {
    std::vector<int> const there = topology.rail_neighbours_of(other);
    auto const self = std::ranges::lower_bound(there, rank);
    found.push_back({.member = {.rank = other, .node = topology.node_of(other)},
                     .number_there = static_cast<int>(self - there.begin()),
                     .neighbours_there = static_cast<int>(there.size())});
  }
  return found;
}

}  // namespace switchyard::scale_out
