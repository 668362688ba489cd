// A token's routes as warps read them, and the memory of peers that they lead to.
#pragma once

#include "engine/cuda/throughput/args.hpp"

namespace switchyard::cuda {

// Where a receiver's result lies, as this source sees it.
struct Destination {
  std::byte* x;
  std::byte* scales;
  std::byte* topk_idx;
  std::byte* topk_weights;
  std::byte* source_token;
  std::int64_t rows;
  int first_expert;
  int local_experts;
  int start;  // first row of this source; flat layout only
};

// Where a peer's expert outputs lie.
struct SourceRows {
  std::byte const* x;
  std::int64_t stride;  // bytes between rows of x
  std::byte const* weights;
  float const* row_weights;
  std::int64_t rows;
};

// A warp of a block among the warps that do the same work.
struct BlockWarp {
  int index;
  int count;
};

// Each lane passes the route that it has read. The first one without a rank ends the token's list; returns how many
// come before it.
__device__ inline int used_routes(DeviceRoute const& route) {
  unsigned const ends = __ballot_sync(~0U, route.rank < 0);
  return ends == 0 ? 32 : __ffs(static_cast<int>(ends)) - 1;
}

// Route `first + lane` of a token. Its rank is -1 past the end of the token's list.
__device__ inline DeviceRoute route_of_lane(DeviceHandle const& handle, std::int64_t token, int first) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  DeviceRoute route{0, -1, -1};
  if (first + lane < handle.width) route = handle.routes[token * handle.width + first + lane];
  return lane < used_routes(route) ? route : DeviceRoute{0, -1, -1};
}

}  // namespace switchyard::cuda
