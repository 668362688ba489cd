// A fence of CUDA events.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "memory/stream_uses.hpp"

namespace switchyard {

// Of streams of `device`. One that is being captured is left out: what is captured runs when the graph does, and
// its owner keeps the memory as long.
std::unique_ptr<StreamFence> make_stream_fence(int device, std::span<std::uintptr_t const> streams);

}  // namespace switchyard
