// Metadata: the few bytes beside each row: scales, local expert ids, weights, number of the token on its source.
#pragma once

#include "engine/cuda/phases/payload.cuh"

namespace switchyard::cuda {

__device__ inline void store_scales(DispatchArgs const& args, Destination const& to, std::int64_t token,
                                    std::int64_t row) {
  if (args.shape.scale_bytes == 0) return;
  auto const groups = static_cast<std::int64_t>(args.shape.scale_bytes / sizeof(float));
  auto* const out = reinterpret_cast<float*>(to.scales) + row * groups;
  float const* const in = args.scales + token * args.scale_strides[0];
  for (std::int64_t group = threadIdx.x % 32; group < groups; group += 32)
    out[group] = in[group * args.scale_strides[1]];
}

__device__ inline float weight_at(WeightView const& weights, std::int64_t token, int slot) {
  return weights.data[token * weights.row_stride + slot * weights.column_stride];
}

// Ids local to the receiver, -1 where the expert is another's; weights likewise, 0.
__device__ inline void store_topk(DispatchArgs const& args, Destination const& to, std::int64_t token,
                                  std::int64_t row) {
  int const top_k = args.handle.top_k;
  for (int slot = static_cast<int>(threadIdx.x % 32); slot < top_k; slot += 32) {
    std::int64_t const local = id_at(args.ids, token, slot) - to.first_expert;
    bool const ours = local >= 0 && local < to.local_experts;
    std::int64_t const at = row * top_k + slot;
    if (args.shape.topk_bytes > 0 && args.ids.wide) reinterpret_cast<std::int64_t*>(to.topk_idx)[at] = ours ? local : -1;
    if (args.shape.topk_bytes > 0 && !args.ids.wide)
      reinterpret_cast<std::int32_t*>(to.topk_idx)[at] = ours ? static_cast<std::int32_t>(local) : -1;
    if (args.shape.weight_bytes > 0)
      reinterpret_cast<float*>(to.topk_weights)[at] = ours ? weight_at(args.weights, token, slot) : 0.0F;
  }
}

__device__ inline void store_metadata(DispatchArgs const& args, Destination const* destinations, std::int64_t token,
                                      DeviceRoute const& route) {
  Destination const& to = destinations[route.rank];
  std::int64_t const row = route.row;
  store_scales(args, to, token, row);
  if (threadIdx.x % 32 == 0) reinterpret_cast<std::int32_t*>(to.source_token)[row] = static_cast<std::int32_t>(token);
  if (args.ids.data == nullptr) return;
  if (!args.handle.expanded) return store_topk(args, to, token, row);
  if (args.shape.weight_bytes > 0 && threadIdx.x % 32 == 0)
    reinterpret_cast<float*>(to.topk_weights)[row] = weight_at(args.weights, token, route.slot);
}

__device__ inline void metadata_phase(DispatchArgs const& args, Destination const* destinations, PayloadWarp warp) {
  for (std::int64_t token = warp.index; token < args.handle.num_tokens; token += warp.count) {
    for (int first = 0; first < args.handle.width; first += 32) {
      DeviceRoute const mine = route_of_lane(args, destinations, token, first);
      int const used = __popc(__ballot_sync(~0U, mine.rank >= 0));
      for (int i = 0; i < used; ++i) {
        DeviceRoute const route{__shfl_sync(~0U, mine.row, i),
                                static_cast<std::int16_t>(__shfl_sync(~0U, static_cast<int>(mine.rank), i)),
                                static_cast<std::int16_t>(__shfl_sync(~0U, static_cast<int>(mine.slot), i))};
        store_metadata(args, destinations, token, route);
      }
    }
  }
}

}  // namespace switchyard::cuda
