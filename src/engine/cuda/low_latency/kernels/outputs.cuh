// Low-latency combine, send half: outputs that lie elsewhere are copied to the frame, but only the rows that some
// source sent.
#pragma once

#include "engine/cuda/low_latency/kernels/tokens.cuh"
#include "engine/cuda/low_latency/kernels/words.cuh"

namespace switchyard::cuda {

// Calls visit(row) for this warp's share of the rows that were received. All warps of the kernel share them.
template <typename Visit>
__device__ inline void for_received_rows(SlotArgs const& args, Visit const& visit) {
  std::int64_t const warps = static_cast<std::int64_t>(gridDim.x) * slot_warps;
  std::int64_t const warp = static_cast<std::int64_t>(warp_of_block()) * gridDim.x + blockIdx.x;
  int const groups = args.rank_major ? args.peers.num_ranks : args.experts.count(args.peers.rank);
  std::int64_t const rows_each = args.rank_major ? args.max_tokens : args.rows_of_expert();
  auto const* const counts = own_part<std::int32_t>(args, args.at.counts);
  std::int64_t before = 0;  // rows of earlier groups; the next group goes on with the warp whose turn it is
  for (int group = 0; group < groups; ++group) {
    std::int64_t const count = min(static_cast<std::int64_t>(counts[group]), rows_each);
    for (std::int64_t i = (warp - before % warps + warps) % warps; i < count; i += warps)
      visit(group * rows_each + i);
    before += count;
  }
}

// One warp copies a row.
template <typename Vector>
__device__ inline void copy_row(std::byte* to, std::byte const* from, std::uint32_t bytes) {
  constexpr int vectors = 4;  // of each lane, all loaded before any is stored
  constexpr std::uint32_t step = 32 * sizeof(Vector);
#pragma unroll 1
  for (auto at = static_cast<std::uint32_t>(lane_of_warp() * sizeof(Vector)); at < bytes; at += vectors * step) {
    Vector piece[vectors];
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      if (at + i * step < bytes) piece[i] = *reinterpret_cast<Vector const*>(from + at + i * step);
    }
#pragma unroll
    for (int i = 0; i < vectors; ++i) {
      if (at + i * step < bytes) *reinterpret_cast<Vector*>(to + at + i * step) = piece[i];
    }
  }
}

template <typename Vector>
__device__ inline void copy_outputs(SlotCombineArgs const& args) {
  auto const bytes = static_cast<std::uint32_t>(args.hidden * 2);
  auto* const outputs = own_part<std::byte>(args, args.at.outputs);
  for_received_rows(
      args, [&](std::int64_t row) { copy_row<Vector>(outputs + row * bytes, args.x + row * bytes, bytes); });
}

}  // namespace switchyard::cuda
