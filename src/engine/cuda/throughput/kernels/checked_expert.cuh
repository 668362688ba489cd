// Reading top-k ids that nobody has checked.
#pragma once

#include "engine/cuda/device/ids.cuh"
#include "engine/cuda/throughput/args.hpp"

namespace switchyard::cuda {

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
