// Metadata: the few bytes that go with each row (scales, local expert ids, weights, the token's number on its
// source), and padding: what the rows of the own result hold that no source writes.
#pragma once

#include "engine/cuda/device/block_tokens.cuh"
#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/throughput/kernels/routes.cuh"

namespace switchyard::cuda {

__device__ inline float weight_at(WeightView const& weights, std::int64_t token, int slot) {
  return weights.data[token * weights.row_stride + slot * weights.column_stride];
}

// The part of a token's metadata that a lane handles: slots lane and lane + 32, and scales lane and lane + 32. It
// is loaded once and stored at every destination. Scales beyond these are loaded for each destination.
struct TokenMetadata {
  float scales[2];
  std::int64_t ids[2];
  float weights[2];
};

__device__ inline TokenMetadata load_metadata(DispatchKernelArgs const& args, std::int64_t token) {
  TokenMetadata data{};
  auto const groups = static_cast<int>(args.shape.scale_bytes / sizeof(float));
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    int const index = static_cast<int>(threadIdx.x % 32) + 32 * part;
    if (index < groups)
      data.scales[part] = args.scales[token * args.scale_strides[0] + index * args.scale_strides[1]];
    if (args.ids.data == nullptr || index >= args.handle.top_k) continue;
    data.ids[part] = id_at(args.ids, token, index);
    if (args.weights.data != nullptr) data.weights[part] = weight_at(args.weights, token, index);
  }
  return data;
}

__device__ inline void store_scales(DispatchKernelArgs const& args, TokenMetadata const& data,
                                    Destination const& to, std::int64_t token, std::int64_t row) {
  auto const groups = static_cast<int>(args.shape.scale_bytes / sizeof(float));
  auto* const out = reinterpret_cast<float*>(to.scales) + row * groups;
  int const lane = static_cast<int>(threadIdx.x % 32);
  if (lane < groups) out[lane] = data.scales[0];
  if (lane + 32 < groups) out[lane + 32] = data.scales[1];
  for (int group = lane + 64; group < groups; group += 32)
    out[group] = args.scales[token * args.scale_strides[0] + group * args.scale_strides[1]];
}

// Ids become local to the receiver. Where another rank has the expert, the id is -1 and the weight 0.
__device__ inline void store_topk(DispatchKernelArgs const& args, TokenMetadata const& data, Destination const& to,
                                  std::int64_t row) {
  int const top_k = args.handle.top_k;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    int const slot = static_cast<int>(threadIdx.x % 32) + 32 * part;
    if (slot >= top_k) continue;
    std::int64_t const local = data.ids[part] - to.first_expert;
    bool const ours = local >= 0 && local < to.local_experts;
    std::int64_t const at = row * top_k + slot;
    if (args.ids.wide)
      reinterpret_cast<std::int64_t*>(to.topk_idx)[at] = ours ? local : -1;
    else
      reinterpret_cast<std::int32_t*>(to.topk_idx)[at] = ours ? static_cast<std::int32_t>(local) : -1;
    if (args.shape.weight_bytes > 0)
      reinterpret_cast<float*>(to.topk_weights)[at] = ours ? data.weights[part] : 0.0F;
  }
}

__device__ inline void store_metadata(DispatchKernelArgs const& args, TokenMetadata const& data,
                                      Destination const& to, std::int64_t token, DeviceRoute const& route) {
  std::int64_t const row = route.row;
  int const lane = static_cast<int>(threadIdx.x % 32);
  if (args.shape.scale_bytes > 0) store_scales(args, data, to, token, row);
  if (lane == 0)
    reinterpret_cast<std::int32_t*>(to.source_token)[row] = static_cast<std::int32_t>(args.first_token + token);
  if (args.shape.topk_bytes > 0) store_topk(args, data, to, row);
  if (args.handle.expanded && args.shape.weight_bytes > 0 && lane == 0)
    reinterpret_cast<float*>(to.topk_weights)[row] = weight_at(args.weights, token, route.slot);
}

// A copy of the token's ids, for whoever keeps the routes.
__device__ inline void keep_ids(DispatchKernelArgs const& args, TokenMetadata const& data, std::int64_t token) {
  int const top_k = args.handle.top_k;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    int const slot = static_cast<int>(threadIdx.x % 32) + 32 * part;
    if (slot >= top_k) continue;
    std::int64_t const at = token * top_k + slot;
    if (args.ids.wide)
      static_cast<std::int64_t*>(args.ids_copy)[at] = data.ids[part];
    else
      static_cast<std::int32_t*>(args.ids_copy)[at] = static_cast<std::int32_t>(data.ids[part]);
  }
}

// The warps of a block that do this share its tokens. Where there are fewer tokens than warps, several warps take
// one token and share its destinations.
__device__ inline void metadata_phase(DispatchKernelArgs const& args, Destination const* destinations,
                                      BlockWarp warp) {
  auto const tokens = static_cast<unsigned>(BlockTokens(args.handle.num_tokens).count);
  unsigned const warps = static_cast<unsigned>(warp.count);
  unsigned const sharers = tokens > 0 && tokens < warps ? warps / tokens : 1;
#pragma unroll 1
  for (unsigned i = static_cast<unsigned>(warp.index); i < tokens * sharers; i += warps) {
    unsigned const index = i / sharers;
    std::int64_t const token = BlockTokens::token(index);
    TokenMetadata const data = load_metadata(args, token);
    if (args.ids_copy != nullptr && i == index * sharers) keep_ids(args, data, token);
    for (int first = 0; first < args.handle.width; first += 32) {
      DeviceRoute const mine = route_of_lane(args.handle, token, first);
      int const used = __popc(__ballot_sync(~0U, mine.rank >= 0));
#pragma unroll 1
      for (int k = static_cast<int>(i - index * sharers); k < used; k += static_cast<int>(sharers)) {
        DeviceRoute const route{__shfl_sync(~0U, mine.row, k),
                                static_cast<std::int16_t>(__shfl_sync(~0U, static_cast<int>(mine.rank), k)),
                                static_cast<std::int16_t>(__shfl_sync(~0U, static_cast<int>(mine.slot), k))};
        store_metadata(args, data, destinations[route.rank], token, route);
      }
    }
  }
}

__device__ inline void fill_by_lanes(std::byte* at, std::size_t bytes, std::uint8_t value) {
  for (std::size_t i = threadIdx.x % 32; i < bytes; i += 32) at[i] = static_cast<std::byte>(value);
}

// One warp fills a row.
__device__ inline void fill_row(DispatchKernelArgs const& args, Destination const& own, std::int64_t row) {
  ReceiveShape const& shape = args.shape;
  if (threadIdx.x % 32 == 0) reinterpret_cast<std::int32_t*>(own.source_token)[row] = -1;
  fill_by_lanes(own.topk_weights + row * shape.weight_bytes, shape.weight_bytes, 0);
  fill_by_lanes(own.topk_idx + row * shape.topk_bytes, shape.topk_bytes, 0xff);  // -1 in either width
  if (!args.zero_padding) return;
  fill_by_lanes(own.x + row * shape.row_bytes, shape.row_bytes, 0);
  fill_by_lanes(own.scales + row * shape.scale_bytes, shape.scale_bytes, 0);
}

// `warp` counts the warps of all blocks. Rows without a source lie behind those of each expert (expanded), and
// behind all `rows` when num_worst_tokens was given.
__device__ inline void padding_phase(DispatchKernelArgs const& args, Destination const& own, std::int64_t rows,
                                     BlockWarp warp) {
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
  for (std::int64_t row = rows + warp.index; row < own.rows; row += warp.count) fill_row(args, own, row);
}

}  // namespace switchyard::cuda
