// Resolve: each block turns the numbers within streams of its tokens into rows of the receivers' results.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/device/report.cuh"
#include "engine/cuda/throughput/kernels/count.cuh"
#include "engine/cuda/throughput/kernels/routes.cuh"

namespace switchyard::cuda {

// The first number of each stream in the range of tokens that this one was counted in.
__device__ inline std::int32_t const* firsts_of(DispatchKernelArgs const& args, std::int64_t token) {
  // In 32 bits, since a division of 64 takes a hundred instructions.
  std::uint32_t const range = static_cast<std::uint32_t>(token) / static_cast<std::uint32_t>(args.cut.tokens);
  return block_counts_of(args.peers) +
         static_cast<std::size_t>(range) * (args.peers.num_ranks + args.experts.num_experts());
}

__device__ inline DeviceRoute resolved(DispatchKernelArgs const& args, Destination const* destinations,
                                       std::int64_t token, DeviceRoute route) {
  if (route.rank < 0) return route;
  int const num_ranks = args.peers.num_ranks;
  if (!args.handle.expanded) {
    // A block that counted alone has numbered all tokens of the rank.
    route.row += destinations[route.rank].start + (counts_alone(args) ? 0 : firsts_of(args, token)[route.rank]);
  } else {
    int const expert = static_cast<int>(id_at(args.ids, token, route.slot));
    int const local = expert - args.experts.first(route.rank);
    route.row +=
        firsts_of(args, token)[num_ranks + expert] + starts_of(args.peers, args.peers.rank, route.rank)[1 + local];
  }
  return route;
}

// A row outside of the receiver's block is reported. It is dropped together with the rest of its token's list.
__device__ inline bool is_inside(DispatchKernelArgs const& args, Destination const* destinations,
                                 DeviceRoute const& route) {
  if (route.rank < 0 || (route.row >= 0 && route.row < destinations[route.rank].rows)) return true;
  report(args.peers, args.waiting,
         {.state = 0,
          .kind = TroubleKind::broken,
          .point = WaitPoint::answer,
          .peer = route.rank,
          .expected = static_cast<std::uint64_t>(destinations[route.rank].rows),
          .seen = static_cast<std::uint64_t>(route.row)});
  return false;
}

// Entry `at` of all lists, resolved. One that leads outside of a block is reported, and ends its list.
__device__ inline DeviceRoute checked_route(DispatchKernelArgs const& args, Destination const* destinations,
                                            std::int64_t token, std::int64_t at) {
  bool const cached = args.start == DispatchStart::cached;
  DeviceRoute const route =
      cached ? args.handle.routes[at] : resolved(args, destinations, token, scratch_routes_of(args.peers)[at]);
  return is_inside(args, destinations, route) ? route : DeviceRoute{0, -1, -1};
}

// As route_of_lane(), for a token of another block, whose routes in the handle may not be written yet.
__device__ inline DeviceRoute unresolved_route_of_lane(DispatchKernelArgs const& args,
                                                       Destination const* destinations, std::int64_t token,
                                                       int first) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  DeviceRoute route{0, -1, -1};
  if (first + lane < args.handle.width)
    route = checked_route(args, destinations, token, token * args.handle.width + first + lane);
  return lane < used_routes(route) ? route : DeviceRoute{0, -1, -1};
}

// All threads of every block call this, before the block moves anything. It writes the handle's routes; a cached
// dispatch finds them there and only checks them.
__device__ inline void resolve_phase(DispatchKernelArgs const& args, Destination const* destinations) {
  BlockTokens const tokens(args.handle.num_tokens);
  int const width = args.handle.width;
  auto const divisor = static_cast<std::uint32_t>(width);  // in 32 bits, as above
  auto const entries = static_cast<std::uint32_t>(tokens.count) * divisor;
  bool const cached = args.start == DispatchStart::cached;
#pragma unroll 1
  for (std::uint32_t i = threadIdx.x; i < entries; i += blockDim.x) {
    std::uint32_t const index = i / divisor;
    std::int64_t const token = BlockTokens::token(index);
    std::int64_t const at = token * width + (i - index * divisor);
    DeviceRoute const route = checked_route(args, destinations, token, at);
    if (!cached || route.rank < 0) args.handle.routes[at] = route;
  }
  __syncthreads();
}

}  // namespace switchyard::cuda
