// Who of a port's neighbours stands for what.
#pragma once

#include <vector>

#include "layout/node_in_job.hpp"
#include "scale_out/port.hpp"

namespace switchyard::scale_out {

// Another node, and the neighbour there that a rank writes to.
struct Way {
  int node = 0;
  int neighbour = 0;
  int rank = 0;  // of the neighbour
};
// In the order of nodes.
std::vector<Way> ways_of(int rank, NodeInJob const& node, Port const& port);

// A rank of another node that a rank serves.
struct Served {
  int rank = 0;
  int neighbour = 0;
};
// In the order of ranks.
std::vector<Served> served_by(int rank, NodeInJob const& node, Port const& port);

}  // namespace switchyard::scale_out
