// Low-latency combine: outputs coded as LogFMT-10. A warp codes a tile of 128 channels, four channels in each lane.
#pragma once

#include "engine/cuda/low_latency/kernels/outputs.cuh"
#include "layout/logfmt.hpp"

namespace switchyard::cuda {

// One warp codes a tile of a row.
template <typename Element>
__device__ inline void encode_tile(SlotCombineArgs const& args, std::int64_t row, int tile, std::byte* coded) {
  int const lane = lane_of_warp();
  auto const* const from = reinterpret_cast<std::uint16_t const*>(args.x) + row * args.hidden;
  std::int64_t const channel = static_cast<std::int64_t>(tile) * logfmt_tile + lane * logfmt_quad;
  float values[logfmt_quad];
  LogfmtRange range;
#pragma unroll
  for (int i = 0; i < logfmt_quad; ++i) {
    values[i] = channel + i < args.hidden ? Element::widen(from[channel + i]) : 0.0F;
    range.add(values[i]);
  }
  range.greatest = __reduce_max_sync(~0U, range.greatest);
  range.least = __reduce_min_sync(~0U, range.least);
  LogfmtEncoder const encoder = logfmt_encoder(range);
  LogfmtQuad const quad = logfmt_encode(encoder, values);
  std::byte* const codes = coded + tile * logfmt_tile_bytes;
  reinterpret_cast<std::uint32_t*>(codes)[lane] = quad.low;
  reinterpret_cast<std::uint8_t*>(codes + logfmt_high_at)[lane] = static_cast<std::uint8_t>(quad.high);
  if (lane == 0)
    reinterpret_cast<LogfmtScale*>(coded + logfmt_scales_at(static_cast<std::size_t>(args.hidden)))[tile] =
        encoder.scale;
}

// The send half codes all rows that some source sent.
template <typename Element>
__device__ inline void encode_outputs(SlotCombineArgs const& args) {
  int const tiles = static_cast<int>(logfmt_tiles(static_cast<std::size_t>(args.hidden)));
  auto* const outputs = own_part<std::byte>(args, args.at.outputs);
  for_received_rows(args, [&](std::int64_t row) {
#pragma unroll 1
    for (int tile = 0; tile < tiles; ++tile)
      encode_tile<Element>(args, row, tile, outputs + row * args.output_bytes);
  });
}

// The receive half reads coded rows through this; see sum.cuh.
struct CodedOutputs {
  static constexpr int values = logfmt_quad;
  struct Loaded {
    LogfmtScale scale;
    LogfmtQuad quad;
  };
  __device__ static Loaded load(SlotCombineArgs const& args, bool wanted, std::byte const* row,
                                std::int64_t element) {
    if (!wanted) return {};
    std::int64_t const tile = element / logfmt_tile;
    std::int64_t const quad = element % logfmt_tile / logfmt_quad;
    std::byte const* const codes = row + tile * static_cast<std::int64_t>(logfmt_tile_bytes);
    auto const* const scales =
        reinterpret_cast<LogfmtScale const*>(row + logfmt_scales_at(static_cast<std::size_t>(args.hidden)));
    return {scales[tile],
            {reinterpret_cast<std::uint32_t const*>(codes)[quad],
             reinterpret_cast<std::uint8_t const*>(codes + logfmt_high_at)[quad]}};
  }
  __device__ static void widen(Loaded const& loaded, float (&out)[values]) {
    logfmt_decode(loaded.scale, loaded.quad, out);
  }
};

}  // namespace switchyard::cuda
