// What the low-latency buffers of both engines do alike: options turned into sizes, frames into tensors.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "call/low_latency_engine.hpp"
#include "layout/slot_rows.hpp"
#include "layout/slots.hpp"
#include "node/host_heap.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

// Of checked options.
SlotSizes slot_sizes_of(LowLatencyOptions const& options, int num_ranks);

// For what takes a Buffer's options: the same sizes, with a heap of that many bytes.
BufferOptions buffer_options_of(LowLatencyOptions const& options, std::size_t heap_bytes);

// What connect_heap() compares: {"LowLatencyOptions", size_options_of(options), low_latency_sizes}.
std::array<SizeOption, 7> size_options_of(LowLatencyOptions const& options);
inline constexpr std::string_view low_latency_sizes = "LowLatencyOptions::max_tokens or max_results";

// Where a frame lies.
struct FramePlace {
  std::byte* frame = nullptr;
  Device device = Device::cpu;
  int local_experts = 0;  // of the own rank
};

// The tensors of a dispatch's result, and its handle. They own the lease together.
LowLatencyReceived received_in(FramePlace const& place, SlotSizes const& sizes, SlotRows const& rows,
                               std::shared_ptr<detail::Lease> const& lease);
Tensor outputs_in(FramePlace const& place, SlotSizes const& sizes, DType dtype, std::int64_t hidden,
                  std::shared_ptr<detail::Lease> const& lease);

}  // namespace switchyard
