// Metadata: the few bytes beside each row: scales, local expert ids, weights, number of the token on its source.
#pragma once

#include "engine/cuda/throughput/kernels/rows.cuh"

namespace switchyard::cuda {

__device__ inline float weight_at(WeightView const& weights, std::int64_t token, int slot) {
  return weights.data[token * weights.row_stride + slot * weights.column_stride];
}

// The part of a token's metadata that a lane handles: slots lane and lane + 32, scales lane and lane + 32. Loaded
// once, stored at every destination; what a longer token has beyond that is loaded each time.
struct TokenMetadata {
  float scales[2];
  std::int64_t ids[2];
  float weights[2];
};

__device__ inline TokenMetadata load_metadata(DispatchArgs const& args, std::int64_t token) {
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

__device__ inline void store_scales(DispatchArgs const& args, TokenMetadata const& data, Destination const& to,
                                    std::int64_t token, std::int64_t row) {
  auto const groups = static_cast<int>(args.shape.scale_bytes / sizeof(float));
  auto* const out = reinterpret_cast<float*>(to.scales) + row * groups;
  int const lane = static_cast<int>(threadIdx.x % 32);
  if (lane < groups) out[lane] = data.scales[0];
  if (lane + 32 < groups) out[lane + 32] = data.scales[1];
  for (int group = lane + 64; group < groups; group += 32)
    out[group] = args.scales[token * args.scale_strides[0] + group * args.scale_strides[1]];
}

// Ids local to the receiver, -1 where the expert is another's; weights likewise, 0.
__device__ inline void store_topk(DispatchArgs const& args, TokenMetadata const& data, Destination const& to,
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

__device__ inline void store_metadata(DispatchArgs const& args, TokenMetadata const& data, Destination const& to,
                                      std::int64_t token, DeviceRoute const& route) {
  std::int64_t const row = route.row;
  int const lane = static_cast<int>(threadIdx.x % 32);
  if (args.shape.scale_bytes > 0) store_scales(args, data, to, token, row);
  if (lane == 0)
    reinterpret_cast<std::int32_t*>(to.source_token)[row] = static_cast<std::int32_t>(args.first_token + token);
  if (args.shape.topk_bytes > 0) store_topk(args, data, to, row);
  if (args.handle.expanded && args.shape.weight_bytes > 0 && lane == 0)
    reinterpret_cast<float*>(to.topk_weights)[row] = weight_at(args.weights, token, route.slot);
}

__device__ inline void metadata_phase(DispatchArgs const& args, Destination const* destinations, BlockWarp warp) {
  BlockTokens const tokens(args.handle.num_tokens);
  for (std::int64_t i = warp.index; i < tokens.count; i += warp.count) {
    std::int64_t const token = BlockTokens::token(i);
    TokenMetadata const data = load_metadata(args, token);
    for (int first = 0; first < args.handle.width; first += 32) {
      DeviceRoute const mine = route_of_lane(args.handle, token, first);
      int const used = __popc(__ballot_sync(~0U, mine.rank >= 0));
      for (int k = 0; k < used; ++k) {
        DeviceRoute const route{__shfl_sync(~0U, mine.row, k),
                                static_cast<std::int16_t>(__shfl_sync(~0U, static_cast<int>(mine.rank), k)),
                                static_cast<std::int16_t>(__shfl_sync(~0U, static_cast<int>(mine.slot), k))};
        store_metadata(args, data, destinations[route.rank], token, route);
      }
    }
  }
}

}  // namespace switchyard::cuda
