// Chooses the kind of GPU memory that all ranks can share.
#pragma once

#include <functional>
#include <optional>

#include "base/refusal.hpp"
#include "memory/gpu_memory_kind.hpp"
#include "node/rank_group.hpp"

namespace switchyard {

// Tries whether this rank can have a kind; returns nothing when it can. Must not throw.
using TryGpuMemory = std::function<std::optional<Refusal>(GpuMemoryKind)>;

// Collective. Returns the first kind that every rank can have and no rank's SWITCHYARD_GPU_MEMORY rules out. When
// there is none, it throws Unsupported on every rank, with what each kind failed on.
GpuMemoryKind choose_gpu_memory(RankGroup& ranks, TryGpuMemory const& try_kind);

}  // namespace switchyard
