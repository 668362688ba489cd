// Checking what the caller of a LowLatencyBuffer passed, before anything is sent. All throw InvalidArgument, naming
// the argument, what was expected and what was seen. The ids of topk_idx are not looked at.
#pragma once

#include <cstdint>

#include "layout/slots.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard {

// What the checks need to know of the buffer.
struct LowLatencyFacts {
  LowLatencyOptions options;
  int num_ranks = 1;
  int rank = 0;
  std::uint64_t buffer_id = 0;
  std::uint64_t era = 0;  // resets so far
  Device device = Device::cpu;
};

void check_low_latency_options(LowLatencyOptions const& options, int num_ranks);
void check_low_latency_dispatch(LowLatencyDispatchArgs const& args, LowLatencyFacts const& buffer);
void check_low_latency_combine(LowLatencyCombineArgs const& args, LowLatencyFacts const& buffer);
// Of this buffer, and not from before a reset.
void check_low_latency_handle(LowLatencyHandle const& handle, LowLatencyFacts const& buffer);
// `outputs`: where the frame has them.
void check_coding(LowLatencyCombineArgs const& args, void const* outputs);
void check_outputs_dtype(DType dtype);
// Of a peer.
void check_peer(int rank, LowLatencyFacts const& buffer);

}  // namespace switchyard
