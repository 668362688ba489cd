// Reading top-k ids on the device.
#pragma once

#include "engine/cuda/host/args.hpp"

namespace switchyard::cuda {

__device__ inline std::int64_t id_at(IdView const& ids, std::int64_t token, int slot) {
  std::int64_t const at = token * ids.row_stride + slot * ids.column_stride;
  return ids.wide ? static_cast<std::int64_t const*>(ids.data)[at]
                  : static_cast<std::int64_t>(static_cast<std::int32_t const*>(ids.data)[at]);
}

// The ids of `count` slots from `first` on, and -1 past the last slot. All loads are issued before any is used.
template <int count>
__device__ inline void load_ids(IdView const& ids, std::int64_t token, int first, int top_k,
                                std::int64_t (&out)[count]) {
  std::int64_t const at = token * ids.row_stride + first * ids.column_stride;
#pragma unroll
  for (int i = 0; i < count; ++i) out[i] = -1;
  if (ids.wide) {
    auto const* const from = static_cast<std::int64_t const*>(ids.data) + at;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (first + i < top_k) out[i] = from[i * ids.column_stride];
    }
  } else {
    auto const* const from = static_cast<std::int32_t const*>(ids.data) + at;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (first + i < top_k) out[i] = from[i * ids.column_stride];
    }
  }
}

}  // namespace switchyard::cuda
