// What a low-latency call is, whichever engine runs it: how it is checked, described to the peers, and shaped.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "call/low_latency_engine.hpp"
#include "layout/slots.hpp"
#include "node/host_heap.hpp"
#include "switchyard/buffer.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard {

// What checking a call needs to know of its buffer.
struct LowLatencyInfo {
  LowLatencyOptions options;
  int num_ranks = 1;
  int rank = 0;
  std::uint64_t buffer_id = 0;   // a handle carries the id of the buffer that made it
  std::uint64_t generation = 0;  // resets so far; a handle of an earlier generation is void
  Device device = Device::cpu;   // where the tensors of a call must lie
};

// These check what the caller passed, before anything is sent. They throw InvalidArgument, which names the
// argument, what was expected and what was seen. They do not read the ids of topk_idx.
void check_low_latency_options(LowLatencyOptions const& options, int num_ranks);
void check_low_latency_dispatch(LowLatencyDispatchArgs const& args, LowLatencyInfo const& buffer);
void check_low_latency_combine(LowLatencyCombineArgs const& args, LowLatencyInfo const& buffer);
// The handle must be of this buffer, and younger than its last reset.
void check_low_latency_handle(LowLatencyHandle const& handle, LowLatencyInfo const& buffer);
// For a combine: its dispatch must be the latest one of its frame. `dispatches` is how many there were since the
// last reset.
void check_latest(LowLatencyHandle const& handle, LowLatencyInfo const& buffer, std::uint64_t dispatches);
// A coded combine writes its codes where the bay has its outputs, so x must lie elsewhere.
void check_coding(LowLatencyCombineArgs const& args, void const* outputs);
void check_outputs_dtype(DType dtype);
void check_peer(int rank, LowLatencyInfo const& buffer);

// The rows of a dispatch as they travel.
struct SlotRows {
  SlotLayout layout = SlotLayout::expert_major;
  DType dtype = DType::bf16;  // of rows and of scales as the receiver gets them, which is after a cast
  DType scale_dtype = DType::f32;
  std::int64_t elements = 0;        // of a row: H, or B
  std::int64_t scale_elements = 0;  // of a row; 0: rows have no scales
  bool weights = false;             // top-k weights travel along

  [[nodiscard]] std::size_t row_bytes() const noexcept {
    return static_cast<std::size_t>(elements) * size_of(dtype);
  }
  [[nodiscard]] std::size_t scale_bytes() const noexcept {
    return static_cast<std::size_t>(scale_elements) * size_of(scale_dtype);
  }
  // Whether the n-th scales of adjacent rows are adjacent.
  [[nodiscard]] bool column_major() const noexcept {
    return layout == SlotLayout::expert_major && scale_dtype != DType::u8;
  }
};
SlotRows slot_rows_of(LowLatencyDispatchArgs const& args) noexcept;

// What all ranks must ask alike, as one number that travels with the rows.
std::uint64_t dispatch_digest(LowLatencyDispatchArgs const& args) noexcept;
std::uint64_t combine_digest(LowLatencyCombineArgs const& args, SlotLayout layout) noexcept;

// The sizes of a buffer's slots. The options must have been checked.
SlotSizes slot_sizes_of(LowLatencyOptions const& options, int num_ranks);

// The same options for functions that take a Buffer's, with a heap of that many bytes.
BufferOptions buffer_options_of(LowLatencyOptions const& options, std::size_t heap_bytes);

// The options that connect_heap() compares between ranks; their type is "LowLatencyOptions".
std::array<SizeOption, 7> size_options_of(LowLatencyOptions const& options);
inline constexpr std::string_view low_latency_sizes = "LowLatencyOptions::max_tokens or max_results";

// Where a bay lies.
struct BayPlace {
  std::byte* bay = nullptr;
  Device device = Device::cpu;
  int local_experts = 0;  // of this rank
};

// The tensors of a dispatch's result, and its handle. All of them own the lease together.
LowLatencyReceived received_in(BayPlace const& place, SlotSizes const& sizes, SlotRows const& rows,
                               std::shared_ptr<detail::Lease> const& lease);
// The tensor that LowLatencyBuffer::outputs() hands out.
Tensor outputs_in(BayPlace const& place, SlotSizes const& sizes, DType dtype, std::int64_t hidden,
                  std::shared_ptr<detail::Lease> const& lease);

}  // namespace switchyard
