// How the memory for chunks between nodes is cut. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout/topology.hpp"

namespace switchyard {

// The same on all ranks of a job.
struct RingPlan {
  std::size_t chunk_bytes = 0;  // of a slot
  int slots = 0;                // that each neighbour may fill
  int send_slots = 0;           // of a rank, for all neighbours together
};

// What somebody asks for; 0: chosen here.
struct RingWish {
  std::size_t chunk_bytes = 0;
  int slots = 0;
  // Where rows lie in memory of a GPU: each chunk is a launch, and passes no cache on its way.
  bool gpu_rows = false;
};

// The rank that has the most neighbours decides. `least_chunk`: what one token may need.
RingPlan plan_rings(Topology const& topology, std::size_t least_chunk, RingWish const& wish);

}  // namespace switchyard
