#include "scale_out/ways.hpp"

namespace switchyard::scale_out {

std::vector<Way> ways_of(int rank, NodeInJob const& node, Port const& port) {
  std::vector<Way> ways;
  for (int other = 0; other < node.topology().num_nodes(); ++other) {
    if (other == node.node()) continue;
    int const peer = node.topology().rail_peer(rank, other);
    ways.push_back({.node = other, .neighbour = port.number_of(peer), .rank = peer});
  }
  return ways;
}

std::vector<Served> served_by(int rank, NodeInJob const& node, Port const& port) {
  std::vector<Served> served;
  for (int const each : node.served().of(node.topology().local_rank_of(rank)).subspan(1))
    served.push_back({.rank = each, .neighbour = port.number_of(each)});
  return served;
}

}  // namespace switchyard::scale_out
