// For benchmarks: where the time of a call goes, and how ranks start together. Programs that use Switchyard do not
// need any of it.
#pragma once

#include <array>
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

// What this rank has written to other nodes since the buffer was made: rows and what goes with them, letters that
// open calls, and credits, which have no bytes. A packet's own header does not count.
struct WireCount {
  std::uint64_t writes = 0;
  std::uint64_t bytes = 0;
  // [i]: writes of 2^i bytes to below 2^(i+1); those of 0 and of 1 byte are in [0].
  std::array<std::uint64_t, 32> writes_by_size{};
  std::array<std::uint64_t, 32> bytes_by_size{};  // of those writes
};

// Zeros in a job of one node. Not while a call is under way.
[[nodiscard]] WireCount wire_count(Buffer const& buffer);
[[nodiscard]] WireCount wire_count(LowLatencyBuffer const& buffer);

// Collective. CUDA engine: what is queued on `cuda_stream` (a cudaStream_t) from here on starts together on all
// ranks. CPU engine: returns when every rank has called it. Throws Timeout or PeerLost.
void gate(LowLatencyBuffer& buffer, std::uintptr_t cuda_stream);

}  // namespace switchyard
