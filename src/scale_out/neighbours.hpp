// Who a rank exchanges writes with.
#pragma once

#include <vector>

#include "layout/topology.hpp"
#include "node/member.hpp"

namespace switchyard::scale_out {

struct Neighbour {
  Member member;
  int number_there = 0;  // of this rank, among the neighbour's neighbours
  int neighbours_there = 0;
};

// The rail neighbours, in the order of ranks.
std::vector<Neighbour> neighbours_of(Topology const& topology, int rank);

}  // namespace switchyard::scale_out
