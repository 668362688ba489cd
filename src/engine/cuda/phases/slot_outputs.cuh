// Low-latency combine, send half: outputs that lie elsewhere go to the frame, those rows only that came from
// somewhere.
#pragma once

#include "engine/cuda/phases/slot_rows.cuh"

namespace switchyard::cuda {

// Calls visit(row) for this warp's share of the rows that were received, all warps of the kernel together.
template <typename Visit>
__device__ inline void for_received_rows(SlotArgs const& args, Visit const& visit) {
  std::int64_t const warps = static_cast<std::int64_t>(gridDim.x) * slot_warps;
  std::int64_t const warp = static_cast<std::int64_t>(warp_of_block()) * gridDim.x + blockIdx.x;
  int const groups = args.rank_major ? args.peers.world : args.experts.count(args.peers.rank);
  std::int64_t const rows_each = args.rank_major ? args.max_tokens : args.rows_of_expert();
  auto const* const counts = frame_part<std::int32_t>(args, args.peers.rank, args.at.counts);
  std::int64_t before = 0;  // rows of earlier groups: whose turn it is goes on from there
  for (int group = 0; group < groups; ++group) {
    std::int64_t const count = min(static_cast<std::int64_t>(counts[group]), rows_each);
    for (std::int64_t i = (warp - before % warps + warps) % warps; i < count; i += warps)
      visit(group * rows_each + i);
    before += count;
  }
}

template <typename Vector>
__device__ inline void copy_outputs_by(SlotCombineArgs const& args) {
  auto const bytes = static_cast<std::uint32_t>(args.hidden * 2);
  auto* const outputs = frame_part<std::byte>(args, args.peers.rank, args.at.outputs);
  for_received_rows(args, [&](std::int64_t row) {
    auto const* const from = reinterpret_cast<Vector const*>(args.x + row * bytes);
    auto* const to = reinterpret_cast<Vector*>(outputs + row * bytes);
#pragma unroll 4
    for (std::uint32_t i = static_cast<std::uint32_t>(lane_of_warp()); i < bytes / sizeof(Vector); i += 32)
      to[i] = from[i];
  });
}

__device__ inline void copy_outputs(SlotCombineArgs const& args) {
  bool const wide = args.hidden * 2 % 16 == 0 && reinterpret_cast<std::uintptr_t>(args.x) % 16 == 0;
  if (wide) {
    copy_outputs_by<uint4>(args);
  } else {
    copy_outputs_by<std::uint16_t>(args);
  }
}

}  // namespace switchyard::cuda
