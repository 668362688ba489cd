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

// What the calls of a buffer brought this rank, and whom it waited for, added up while counting is on.
struct CallCounts {
  std::int64_t dispatches = 0;  // that ended well
  std::int64_t combines = 0;
  std::int64_t dispatch_ns = 0;  // that they took on this rank
  std::int64_t combine_ns = 0;
  // [R] by the rank that was waited for. Of this rank's node: nanoseconds from the beginning of each wait of a call
  // until that rank's word was there, so those of several late ranks overlap. Of another node: nanoseconds in which
  // this rank had nothing to do but wait for what that rank sends, or passes on.
  std::vector<std::int64_t> dispatch_wait_ns;
  std::vector<std::int64_t> combine_wait_ns;
  // [R] bytes of rows and what goes with them: that came from a rank, and that this rank's sums took from there.
  std::vector<std::int64_t> dispatch_bytes;
  std::vector<std::int64_t> combine_bytes;
  // [R, L] top-k slots of a source's tokens that name each local expert; zeros where no ids travel.
  std::vector<std::int64_t> tokens;
};

// Not collective. Switches counting on or off for later calls; it is off at first. What was counted stays. Throws
// Unsupported on an engine that does not count.
void count_calls(Buffer& buffer, bool on);
// Any thread may ask; of calls that are under way nothing is in it.
[[nodiscard]] CallCounts call_counts(Buffer const& buffer);

// Collective. CUDA engine: what is queued on `cuda_stream` (a cudaStream_t) from here on starts together on all
// ranks. CPU engine: returns when every rank has called it. Throws Timeout or PeerLost. CUDA engine over nodes: the
// hosts meet, so until the stream is through there may be no other collective of the communicator.
void gate(LowLatencyBuffer& buffer, std::uintptr_t cuda_stream);

}  // namespace switchyard
