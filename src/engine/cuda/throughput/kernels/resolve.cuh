// Resolve: from numbers within a stream to rows of the receivers' results, for all tokens of a block at once.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/throughput/kernels/answer.cuh"

namespace switchyard::cuda {

__device__ inline DeviceRoute resolved(DispatchArgs const& args, Destination const* destinations,
                                       std::int64_t token, DeviceRoute route) {
  if (route.rank < 0) return route;
  int const num_ranks = args.peers.num_ranks;
  std::int64_t const block = token / args.cut.tokens;
  std::int32_t const* const firsts = block_counts_of(args.peers) + block * (num_ranks + args.experts.num_experts());
  if (!args.handle.expanded) {
    route.row += firsts[route.rank] + destinations[route.rank].start;
  } else {
    int const expert = static_cast<int>(id_at(args.ids, token, route.slot));
    int const local = expert - args.experts.first(route.rank);
    route.row += firsts[num_ranks + expert] + starts_of(args.peers, args.peers.rank, route.rank)[1 + local];
  }
  return route;
}

// A row outside of the receiver's block is reported; it is dropped with the rest of its token's list.
__device__ inline bool is_inside(DispatchArgs const& args, Destination const* destinations,
                                 DeviceRoute const& route) {
  if (route.rank < 0 || (route.row >= 0 && route.row < destinations[route.rank].rows)) return true;
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::broken,
          .phase = Phase::answer,
          .peer = route.rank,
          .expected = static_cast<std::uint64_t>(destinations[route.rank].rows),
          .seen = static_cast<std::uint64_t>(route.row)});
  return false;
}

// Numbers within streams become the handle's routes; a cached dispatch finds them there and only checks. All
// threads; the block's other phases come after.
__device__ inline void resolve_phase(DispatchArgs const& args, Destination const* destinations) {
  BlockTokens const tokens(args.handle.num_tokens);
  int const width = args.handle.width;
  std::int64_t const entries = tokens.count * width;
  bool const cached = args.opening == Opening::cached;
  for (std::int64_t i = threadIdx.x; i < entries; i += blockDim.x) {
    std::int64_t const token = BlockTokens::token(i / width);
    std::int64_t const at = token * width + i % width;
    DeviceRoute const route =
        cached ? args.handle.routes[at] : resolved(args, destinations, token, scratch_routes_of(args.peers)[at]);
    bool const good = is_inside(args, destinations, route);
    if (!cached || !good) args.handle.routes[at] = good ? route : DeviceRoute{0, -1, -1};
  }
  __syncthreads();
}

// Route `first + lane` of a token; rank -1 past the end of its list.
__device__ inline DeviceRoute route_of_lane(DeviceHandle const& handle, std::int64_t token, int first) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  DeviceRoute route{0, -1, -1};
  if (first + lane < handle.width) route = handle.routes[token * handle.width + first + lane];
  unsigned const ends = __ballot_sync(~0U, route.rank < 0);
  int const used = ends == 0 ? 32 : __ffs(static_cast<int>(ends)) - 1;
  return lane < used ? route : DeviceRoute{0, -1, -1};
}

}  // namespace switchyard::cuda
