// Reading top-k ids on the device.
#pragma once

#include "engine/cuda/comm/peers.cuh"

namespace switchyard::cuda {

__device__ inline std::int64_t id_at(IdView const& ids, std::int64_t token, int slot) {
  std::int64_t const at = token * ids.row_stride + slot * ids.column_stride;
  return ids.wide ? static_cast<std::int64_t const*>(ids.data)[at]
                  : static_cast<std::int64_t>(static_cast<std::int32_t const*>(ids.data)[at]);
}

// Ids of `count` slots from `first` on, all asked for before any is there; -1 past the last slot.
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

// The expert of a slot by its id; -1 when it is not used. Notes an id that is out of range.
__device__ inline int checked_expert(NotifyArgs const& args, std::int64_t id, std::int64_t token, int slot) {
  if (id >= 0 && id < args.experts.num_experts()) return static_cast<int>(id);
  if (id != -1) {
    auto const place = static_cast<unsigned long long>(token * 64 + slot);
    atomicMin(reinterpret_cast<unsigned long long*>(&state_of(args.peers)->bad_id), place);
  }
  return -1;
}

}  // namespace switchyard::cuda
