#include "engine/cuda/low_latency/over_nodes/staging.hpp"

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "call/rows.hpp"
#include "layout/fp8.hpp"

namespace switchyard::cuda {

namespace {

// Places parts of a frame one after another; without memory it only counts.
class Places {
 public:
  explicit Places(std::byte* memory) : memory_(memory) {}
  template <typename T = std::byte>
  T* take(std::size_t count) {
    std::byte* const at = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ = align_up(used_ + count * sizeof(T), part_alignment);
    return reinterpret_cast<T*>(at);
  }
  [[nodiscard]] std::size_t used() const noexcept { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

StagedFrame place_frame(Places& places, StagingSizes const& sizes) {
  auto const tokens = static_cast<std::size_t>(sizes.slots.max_tokens);
  auto const hidden = static_cast<std::size_t>(sizes.hidden);
  auto const slots = tokens * static_cast<std::size_t>(sizes.slots.top_k);
  auto const ranks = static_cast<std::size_t>(sizes.slots.num_ranks);
  std::size_t const scales = static_cast<std::size_t>(scale_groups(sizes.hidden)) * sizeof(float);
  StagedFrame frame;
  frame.result = places.take<HostResult>(1);
  frame.counts = places.take<std::int32_t>(std::max(ranks, static_cast<std::size_t>(sizes.local_experts)));
  // Rows that are cast come in as f32 at most.
  frame.x = places.take(tokens * std::max(sizes.slots.row_bytes, hidden * sizeof(float)));
  frame.scales = places.take(tokens * std::max(sizes.slots.scale_bytes, scales));
  frame.topk_idx = places.take(slots * sizeof(std::int64_t));
  frame.weights = places.take(slots * sizeof(float));
  frame.received_per_expert = places.take<std::int32_t>(static_cast<std::size_t>(sizes.local_experts));
  frame.wait_ns = places.take<std::int64_t>(ranks);
  frame.combine_weights = places.take(slots * sizeof(float));
  frame.out = places.take(tokens * hidden * 2);
  frame.combine_wait_ns = places.take<std::int64_t>(ranks);
  return frame;
}

std::size_t bytes_of(StagingSizes const& sizes) {
  Places places(nullptr);
  places.take<CallEnd>(1);
  for (int frame = 0; frame < sizes.slots.frames; ++frame) place_frame(places, sizes);
  return places.used();
}

std::uint64_t bytes(std::int64_t elements, DType dtype) {
  return static_cast<std::uint64_t>(elements) * size_of(dtype);
}

std::byte* data_of(ConstTensorView const& view) {
  return static_cast<std::byte*>(const_cast<void*>(view.data));
}

// A contiguous view on the host in the place of one of the caller's.
ConstTensorView packed(ConstTensorView const& view, void const* at) {
  if (!view.given()) return {};
  return {at, view.dtype, {view.size(0), view.size(1)}};
}

template <typename T>
TensorView numbers(TensorView const& of_caller, T* at) {
  if (!of_caller.given()) return {};
  return {at, of_caller.dtype, {of_caller.size(0)}};
}

class Copies {
 public:
  void add(CopyPlane const& plane) {
    if (plane.bytes > 0 && plane.rows > 0) args_.planes[args_.num_planes++] = plane;
  }
  // [rows, columns] of any strides, which are contiguous on the host.
  void add_packed(ConstTensorView const& view, std::byte* host) {
    if (!view.given()) return;
    std::uint64_t const row = bytes(view.size(1), view.dtype);
    auto const rows = static_cast<std::uint32_t>(view.size(0));
    if (view.size(1) <= 1 || view.stride(1) == 1)
      return add({.device = data_of(view),
                  .host = host,
                  .device_row = bytes(view.stride(0), view.dtype),
                  .host_row = row,
                  .bytes = row,
                  .groups = 1,
                  .rows = rows});
    add({.device = data_of(view),
         .host = host,
         .device_group = bytes(view.stride(0), view.dtype),
         .device_row = bytes(view.stride(1), view.dtype),
         .host_group = row,
         .host_row = size_of(view.dtype),
         .bytes = size_of(view.dtype),
         .groups = rows,
         .rows = static_cast<std::uint32_t>(view.size(1))});
  }
  // As much of each group as it has rows, of a part that lies alike on both sides.
  void add_rows(TensorView const& view, Part part, std::byte* host = nullptr) {
    if (!view.given()) return;
    std::int64_t const elements = view.ndim > 2 ? view.size(2) : 1;
    std::uint64_t const group = bytes(view.size(1) * elements, view.dtype);
    add({.device = data_of(view),
         .host = host,
         .device_group = group,
         .host_group = group,
         .bytes = bytes(elements, view.dtype),
         .groups = static_cast<std::uint32_t>(view.size(0)),
         .rows = 1,
         .part = part,
         .counted = 1});
  }
  // The same where the n-th elements of a group's rows are adjacent.
  void add_columns(TensorView const& view, Part part) {
    std::uint64_t const column = bytes(view.size(1), view.dtype);
    auto const columns = static_cast<std::uint32_t>(view.size(2));
    add({.device = data_of(view),
         .host = nullptr,
         .device_group = column * columns,
         .device_row = column,
         .host_group = column * columns,
         .host_row = column,
         .bytes = size_of(view.dtype),
         .groups = static_cast<std::uint32_t>(view.size(0)),
         .rows = columns,
         .part = part,
         .counted = 1});
  }
  // Adjacent bytes.
  void add_all(TensorView const& view, Part part) {
    if (!view.given()) return;
    add({.device = data_of(view),
         .host = nullptr,
         .bytes = bytes(view.numel(), view.dtype),
         .groups = 1,
         .rows = 1,
         .part = part});
  }
  void add_sum(TensorView const& to, void const* host) {
    if (!to.given()) return;
    args_.sums[args_.num_sums++] = {.device = data_of(to),
                                    .host = static_cast<std::byte const*>(host),
                                    .count = static_cast<std::uint32_t>(to.size(0)),
                                    .bytes = static_cast<std::uint32_t>(size_of(to.dtype))};
  }
  // With what the frame's result says.
  void of_result(HostResult const* result, std::uint64_t use, std::int64_t groups) {
    args_.result = result;
    args_.use = use;
    args_.num_counts = static_cast<std::uint32_t>(groups);
  }
  void to_host() { args_.to_host = 1; }
  void behind(CallEnd& end) { args_.end = &end; }
  [[nodiscard]] CopyArgs const& args() const { return args_; }

 private:
  CopyArgs args_{};
};

}  // namespace

Staging::Staging(StagingSizes const& sizes) : sizes_(sizes), memory_(bytes_of(sizes)) {
  std::memset(memory_.bytes().data(), 0, memory_.bytes().size());
  Places places(memory_.bytes().data());
  end_ = places.take<CallEnd>(1);
  for (int frame = 0; frame < sizes.slots.frames; ++frame) frames_.push_back(place_frame(places, sizes));
}

LowLatencyDispatchArgs on_host(LowLatencyDispatchArgs const& args, StagedFrame const& frame) {
  return {.x = packed(args.x, frame.x),
          .scales = packed(args.scales, frame.scales),
          .topk_idx = packed(args.topk_idx, frame.topk_idx),
          .topk_weights = packed(args.topk_weights, frame.weights),
          .cast = args.cast,
          .layout = args.layout,
          .received_per_expert = numbers(args.received_per_expert, frame.received_per_expert),
          .wait_ns_per_source = numbers(args.wait_ns_per_source, frame.wait_ns),
          .num_workers = args.num_workers};
}

LowLatencyCombineArgs on_host(LowLatencyCombineArgs const& args, StagedFrame const& frame,
                              ConstTensorView const& x) {
  return {.x = x,
          .topk_weights = packed(args.topk_weights, frame.combine_weights),
          .coding = args.coding,
          .out = {frame.out, args.out.dtype, {args.out.size(0), args.out.size(1)}},
          .wait_ns_per_source = numbers(args.wait_ns_per_source, frame.combine_wait_ns),
          .num_workers = args.num_workers};
}

CopyArgs inputs_to_host(LowLatencyDispatchArgs const& args, StagedFrame const& frame) {
  Copies copies;
  copies.to_host();
  copies.add_packed(args.x, frame.x);
  copies.add_packed(args.scales, frame.scales);
  copies.add_packed(args.topk_idx, frame.topk_idx);
  copies.add_packed(args.topk_weights, frame.weights);
  return copies.args();
}

CopyArgs outputs_to_host(LowLatencyCombineArgs const& args, StagedFrame const& frame, std::uint64_t use,
                         std::byte* elsewhere) {
  Copies copies;
  copies.to_host();
  copies.of_result(frame.result, use, args.x.size(0));
  TensorView x(data_of(args.x), args.x.dtype, {args.x.size(0), args.x.size(1), args.x.size(2)});
  copies.add_rows(x, Part::outputs, elsewhere);
  copies.add_packed(args.topk_weights, frame.combine_weights);
  return copies.args();
}

CopyArgs result_to_device(ResultCopy const& copy) {
  LowLatencyReceived const& received = copy.received;
  LowLatencyDispatchArgs const& args = copy.args;
  Copies copies;
  copies.behind(copy.end);
  copies.of_result(copy.frame.result, copy.use, received.counts.size(0));
  copies.add_rows(received.x, Part::x);
  if (slot_rows_of(args).column_major() && received.scales.given())
    copies.add_columns(received.scales, Part::scales);
  else
    copies.add_rows(received.scales, Part::scales);
  copies.add_rows(received.source_token, Part::source_token);
  copies.add_rows(received.topk_idx, Part::topk_idx);
  copies.add_rows(received.topk_weights, Part::topk_weights);
  copies.add_all(received.ranges, Part::ranges);
  copies.add_all(received.counts, Part::counts);
  copies.add_all(args.counts, Part::counts);
  copies.add_sum(args.received_per_expert, copy.frame.received_per_expert);
  copies.add_sum(args.wait_ns_per_source, copy.frame.wait_ns);
  return copies.args();
}

CopyArgs sums_to_device(LowLatencyCombineArgs const& args, StagedFrame const& frame, CallEnd& end) {
  Copies copies;
  copies.behind(end);
  copies.add_packed(args.out, frame.out);
  copies.add_sum(args.wait_ns_per_source, frame.combine_wait_ns);
  return copies.args();
}

}  // namespace switchyard::cuda
