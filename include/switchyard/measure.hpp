// For benchmarks: where the time of a call goes, and how ranks start together. Programs that use Switchyard do not
// need any of it.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/buffer.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard {

// How long a part of a call took.
struct PhaseTime {
  char const* name = "";
  double us = 0;  // microseconds
};

// Collective. CUDA engine: what is queued on buffer.cuda_stream() from here on starts together on all ranks. CPU
// engine: does nothing.
void gate(Buffer& buffer);

// CUDA engine: where the time of the latest call went, on this rank, by the GPU's clock, in order. Valid when the
// call is complete. A phase that the call did without is left out:
// - dispatch: launch (since the latest gate), count, agree, answer, move, close;
// - combine: launch, stage, agree, sum, close;
// - get_layout: launch, count.
// CPU engine: empty.
[[nodiscard]] std::vector<PhaseTime> phases(Buffer const& buffer);

// Collective. CUDA engine: what is queued on `cuda_stream` (a cudaStream_t) from here on starts together on all
// ranks. CPU engine: returns when every rank has called it. Throws Timeout or PeerLost.
void gate(LowLatencyBuffer& buffer, std::uintptr_t cuda_stream);

}  // namespace switchyard
