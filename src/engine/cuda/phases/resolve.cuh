// Resolve: from the number within a stream to the row of the receiver's result.
#pragma once

#include "engine/cuda/phases/answer.cuh"
#include "engine/cuda/phases/ids.cuh"

namespace switchyard::cuda {

// What the notify kernel left of a token's route, made final. Rank -1 when the token has no such route.
__device__ inline DeviceRoute resolved(DispatchArgs const& args, Destination const* destinations, std::int64_t token,
                                       int index) {
  if (args.cached) return args.handle.routes[token * args.handle.width + index];
  DeviceRoute route = scratch_routes_of(args.peers)[token * args.handle.width + index];
  if (route.rank < 0) return route;
  int const world = args.peers.world;
  std::int64_t const block = token / args.tokens_per_block;
  std::int32_t const* const firsts = block_counts_of(args.peers) + block * (world + args.experts.num_experts());
  if (!args.handle.expanded) {
    route.row += firsts[route.rank] + destinations[route.rank].start;
    return route;
  }
  int const expert = static_cast<int>(id_at(args.ids, token, route.slot));
  int const local = expert - args.experts.first(route.rank);
  route.row += firsts[world + expert] + starts_of(args.peers, args.peers.rank, route.rank)[1 + local];
  return route;
}

// The route of `index`, with its row checked against the receiver's block; a lane past the end gets rank -1. Lists
// end at the first rank -1, and the caller asks for 32 at a time.
__device__ inline DeviceRoute route_of_lane(DispatchArgs const& args, Destination const* destinations,
                                            std::int64_t token, int first) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  int const index = first + lane;
  DeviceRoute route{0, -1, -1};
  if (index < args.handle.width) {
    DeviceRoute const* const list = args.cached ? args.handle.routes : scratch_routes_of(args.peers);
    route.rank = list[token * args.handle.width + index].rank;
  }
  unsigned const ends = __ballot_sync(~0U, route.rank < 0);
  int const used = ends == 0 ? 32 : __ffs(static_cast<int>(ends)) - 1;
  if (lane >= used) return {0, -1, -1};
  route = resolved(args, destinations, token, index);
  if (route.row >= 0 && route.row < destinations[route.rank].rows) return route;
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::broken,
          .phase = Phase::answer,
          .peer = route.rank,
          .expected = static_cast<std::uint64_t>(destinations[route.rank].rows),
          .seen = static_cast<std::uint64_t>(route.row)});
  return {0, -1, -1};
}

}  // namespace switchyard::cuda
