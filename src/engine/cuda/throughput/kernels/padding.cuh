// Padding: rows of the own result that no source writes.
#pragma once

#include "engine/cuda/throughput/kernels/metadata.cuh"

namespace switchyard::cuda {

__device__ inline void fill_by_lanes(std::byte* at, std::size_t bytes, std::uint8_t value) {
  for (std::size_t i = threadIdx.x % 32; i < bytes; i += 32) at[i] = static_cast<std::byte>(value);
}

// By one warp.
__device__ inline void fill_row(DispatchArgs const& args, Destination const& own, std::int64_t row) {
  ReceiveShape const& shape = args.shape;
  if (threadIdx.x % 32 == 0) reinterpret_cast<std::int32_t*>(own.source_token)[row] = -1;
  fill_by_lanes(own.topk_weights + row * shape.weight_bytes, shape.weight_bytes, 0);
  fill_by_lanes(own.topk_idx + row * shape.topk_bytes, shape.topk_bytes, 0xff);  // -1 in either width
  if (!args.zero_padding) return;
  fill_by_lanes(own.x + row * shape.row_bytes, shape.row_bytes, 0);
  fill_by_lanes(own.scales + row * shape.scale_bytes, shape.scale_bytes, 0);
}

__device__ inline void padding_phase(DispatchArgs const& args, Destination const& own, BlockWarp warp) {
  if (args.handle.expanded) {
    std::int64_t begin = 0;
    for (int expert = 0; expert < args.experts.count(args.peers.rank); ++expert) {
      std::int64_t const end = begin + args.handle.padded[expert];
      std::int64_t const last = end < own.rows ? end : own.rows;
      for (std::int64_t row = begin + args.handle.real[expert] + warp.index; row < last; row += warp.count)
        fill_row(args, own, row);
      begin = end;
    }
  }
  for (std::int64_t row = *args.handle.rows + warp.index; row < own.rows; row += warp.count)
    fill_row(args, own, row);
}

}  // namespace switchyard::cuda
