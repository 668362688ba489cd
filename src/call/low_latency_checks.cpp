#include <string_view>

#include "base/check.hpp"
#include "call/low_latency.hpp"
#include "call/setup.hpp"
#include "call/views.hpp"
#include "layout/experts.hpp"
#include "layout/fp8.hpp"

namespace switchyard {

namespace {

// A rank maps the slots of all ranks of its node into 47 bits of addresses.
constexpr double most_bytes = 0x1p44;

char const* name_of(SlotLayout layout) {
  return layout == SlotLayout::expert_major ? "expert_major" : "rank_major";
}

std::int64_t local_experts(LowLatencyInfo const& buffer) {
  return ExpertSplit(buffer.options.num_experts, buffer.num_ranks).count(buffer.rank);
}

void check_cast(LowLatencyDispatchArgs const& args) {
  require(args.cast <= SendCast::fp8_ue8m0, "cast: expected a SendCast, seen {}", static_cast<int>(args.cast));
  bool const can_cast = args.x.dtype == DType::bf16 || args.x.dtype == DType::f16 || args.x.dtype == DType::f32;
  require(args.cast == SendCast::none || can_cast, "cast: expected x of dtype bf16 or f16 or f32, seen {}",
          switchyard::name_of(args.x.dtype));
}

void check_slot_scales(LowLatencyDispatchArgs const& args, Device device) {
  bool const fp8 = args.x.dtype == DType::f8e4m3;
  bool const opaque = args.x.dtype == DType::u8;
  require(!args.scales.given() || fp8 || opaque, "scales: expected none for x of dtype {}, seen a tensor",
          switchyard::name_of(args.x.dtype));
  require(args.scales.given() || !fp8, "scales: expected a tensor for x of dtype f8e4m3, seen none");
  if (!args.scales.given()) return;
  check_shape("scales", args.scales, {args.x.size(0), fp8 ? scale_groups(args.x.size(1)) : any}, device);
  check_dtype("scales", args.scales, {fp8 ? DType::f32 : DType::u8});
  if (fp8) check_aligned("scales", args.scales);
  if (opaque) check_rows("scales", args.scales);
}

void check_widths(SlotRows const& rows, LowLatencyInfo const& buffer) {
  SlotSizes const sizes = slot_sizes_of(buffer.options, buffer.num_ranks);
  require(rows.elements >= 1, "x: dimension 1: expected 1 or more, seen {}", rows.elements);
  require(rows.row_bytes() <= sizes.row_bytes, "x: expected rows of at most {} bytes (max_row_bytes), seen {}",
          sizes.row_bytes, rows.row_bytes());
  require(rows.scale_bytes() <= sizes.scale_bytes,
          "scales: expected rows of at most {} bytes (max_scale_bytes), seen {}", sizes.scale_bytes,
          rows.scale_bytes());
}

void check_weights(LowLatencyDispatchArgs const& args, LowLatencyInfo const& buffer) {
  require(args.layout == SlotLayout::expert_major || args.layout == SlotLayout::rank_major,
          "layout: expected expert_major or rank_major, seen {}", static_cast<int>(args.layout));
  if (!args.topk_weights.given()) return;
  require(args.layout == SlotLayout::rank_major, "topk_weights: expected none in layout {}, seen a tensor",
          name_of(args.layout));
  check_shape("topk_weights", args.topk_weights, {args.x.size(0), buffer.options.top_k}, buffer.device);
  check_dtype("topk_weights", args.topk_weights, {DType::f32});
  check_aligned("topk_weights", args.topk_weights);
}

void check_wait_ns(TensorView const& view, LowLatencyInfo const& buffer) {
  if (!view.given()) return;
  check_shape("wait_ns_per_source", view, {buffer.num_ranks}, buffer.device);
  check_dtype("wait_ns_per_source", view, {DType::i64});
  check_rows("wait_ns_per_source", view);
}

void check_received_per_expert(TensorView const& view, LowLatencyInfo const& buffer) {
  if (!view.given()) return;
  check_shape("received_per_expert", view, {local_experts(buffer)}, buffer.device);
  check_dtype("received_per_expert", view, {DType::i32});
  check_rows("received_per_expert", view);
}

void check_counts(LowLatencyDispatchArgs const& args, LowLatencyInfo const& buffer) {
  if (!args.counts.given()) return;
  bool const by_expert = args.layout == SlotLayout::expert_major;
  check_shape("counts", args.counts, {by_expert ? local_experts(buffer) : buffer.num_ranks}, buffer.device);
  check_dtype("counts", args.counts, {DType::i32});
  check_rows("counts", args.counts);
}

void check_parallelism(int num_workers, int num_sms) {
  check_workers(num_workers);
  require(num_sms >= 0, "num_sms: expected 0 or more, seen {}", num_sms);
}

void check_contiguous(std::string_view name, ConstTensorView const& view) {
  std::int64_t stride = 1;
  for (int dim = view.ndim - 1; dim >= 0; --dim) {
    require(view.size(dim) <= 1 || view.stride(dim) == stride || view.numel() == 0,
            "{}: expected a contiguous tensor (stride {} in dimension {}), seen stride {}", name, stride, dim,
            view.stride(dim));
    stride *= view.size(dim);
  }
  check_aligned(name, view);
}

void check_expert_outputs(LowLatencyCombineArgs const& args, LowLatencyInfo const& buffer) {
  std::int64_t const hidden = buffer.options.hidden;
  std::int64_t const slots = buffer.options.max_tokens;
  if (args.handle.lease()->layout == SlotLayout::expert_major) {
    check_shape("x", args.x, {local_experts(buffer), buffer.num_ranks * slots, hidden}, buffer.device);
  } else {
    check_shape("x", args.x, {buffer.num_ranks, slots, hidden}, buffer.device);
  }
  check_dtype("x", args.x, {DType::bf16, DType::f16});
  check_contiguous("x", args.x);
}

void check_sizes(LowLatencyOptions const& options, int num_ranks) {
  SlotSizes const sizes = slot_sizes_of(options, num_ranks);
  // The product is taken in floating point, which does not overflow.
  auto const row = static_cast<double>(sizes.row_bytes + sizes.scale_bytes + sizes.output_bytes + 4);
  double const ids = static_cast<double>(sizes.sources_rows()) * options.top_k * 8;
  double const bytes = (static_cast<double>(sizes.rows()) * row + ids) * options.max_results;
  require(bytes <= most_bytes, "max_tokens: expected slots of at most {:.0f} bytes in all, seen {:.0f}", most_bytes,
          bytes);
}

}  // namespace

void check_low_latency_options(LowLatencyOptions const& options, int num_ranks) {
  check_options(buffer_options_of(options, 0), num_ranks);
  require(options.max_results >= 1 && options.max_results <= max_frames, "max_results: expected 1..{}, seen {}",
          max_frames, options.max_results);
  constexpr std::int64_t most = std::int64_t{1} << 30;
  require(options.max_row_bytes >= 0 && options.max_row_bytes <= most, "max_row_bytes: expected 0..{}, seen {}",
          most, options.max_row_bytes);
  require(options.max_scale_bytes >= 0 && options.max_scale_bytes <= most,
          "max_scale_bytes: expected 0..{}, seen {}", most, options.max_scale_bytes);
  require(options.num_sms >= 0, "num_sms: expected 0 or more, seen {}", options.num_sms);
  check_sizes(options, num_ranks);
}

void check_low_latency_dispatch(LowLatencyDispatchArgs const& args, LowLatencyInfo const& buffer) {
  bool const opaque = args.x.dtype == DType::u8;
  check_shape("x", args.x, {any, opaque ? any : buffer.options.hidden}, buffer.device);
  check_dtype("x", args.x, {DType::bf16, DType::f16, DType::f32, DType::f8e4m3, DType::u8});
  check_rows("x", args.x);
  require(args.x.size(0) <= buffer.options.max_tokens, "x: dimension 0: expected at most max_tokens = {}, seen {}",
          buffer.options.max_tokens, args.x.size(0));
  check_cast(args);
  check_slot_scales(args, buffer.device);
  check_widths(slot_rows_of(args), buffer);
  check_shape("topk_idx", args.topk_idx, {args.x.size(0), buffer.options.top_k}, buffer.device);
  check_dtype("topk_idx", args.topk_idx, {DType::i64, DType::i32});
  check_aligned("topk_idx", args.topk_idx);
  check_weights(args, buffer);
  check_received_per_expert(args.received_per_expert, buffer);
  check_counts(args, buffer);
  check_wait_ns(args.wait_ns_per_source, buffer);
  check_parallelism(args.num_workers, args.num_sms);
}

void check_low_latency_combine(LowLatencyCombineArgs const& args, LowLatencyInfo const& buffer) {
  check_low_latency_handle(args.handle, buffer);
  detail::Lease const& lease = *args.handle.lease();
  check_expert_outputs(args, buffer);
  require(args.coding == CombineCoding::none || args.coding == CombineCoding::logfmt10,
          "coding: expected none or logfmt10, seen {}", static_cast<int>(args.coding));
  if (args.topk_weights.given()) {
    require(lease.layout == SlotLayout::expert_major, "topk_weights: expected none in layout {}, seen a tensor",
            name_of(lease.layout));
    check_shape("topk_weights", args.topk_weights, {lease.num_tokens, buffer.options.top_k}, buffer.device);
    check_dtype("topk_weights", args.topk_weights, {DType::f32});
    check_aligned("topk_weights", args.topk_weights);
  }
  require(args.out.given(), "out: expected a tensor, seen none");
  check_shape("out", args.out, {lease.num_tokens, buffer.options.hidden}, buffer.device);
  check_dtype("out", args.out, {args.x.dtype});
  check_writable_rows("out", args.out);
  check_wait_ns(args.wait_ns_per_source, buffer);
  check_parallelism(args.num_workers, args.num_sms);
}

void check_low_latency_handle(LowLatencyHandle const& handle, LowLatencyInfo const& buffer) {
  require(handle.given(), "handle: expected the handle of a dispatch, seen none");
  require(handle.lease()->buffer_id == buffer.buffer_id,
          "handle: expected a handle of this buffer, seen one of another");
  require(handle.lease()->generation == buffer.generation,
          "handle: expected one from after the last reset, seen one from before");
}

void check_latest(LowLatencyHandle const& handle, LowLatencyInfo const& buffer, std::uint64_t dispatches) {
  std::uint64_t const ago = dispatches - handle.lease()->number;
  auto const frames = static_cast<std::uint64_t>(buffer.options.max_results);
  require(ago < frames,
          "handle: expected one of the latest {} dispatches (max_results), seen that of {} dispatches ago, whose "
          "tensors can still be read",
          frames, ago);
}

void check_coding(LowLatencyCombineArgs const& args, void const* outputs) {
  require(args.coding == CombineCoding::none || args.x.data != outputs,
          "x: expected a tensor other than that of outputs() with coding logfmt10, seen that one");
}

void check_outputs_dtype(DType dtype) {
  require(dtype == DType::bf16 || dtype == DType::f16, "dtype: expected bf16 or f16, seen {}",
          switchyard::name_of(dtype));
}

void check_peer(int rank, LowLatencyInfo const& buffer) {
  require(rank >= 0 && rank < buffer.num_ranks && rank != buffer.rank,
          "rank: expected that of a peer, 0..{} but not {}, seen {}", buffer.num_ranks - 1, buffer.rank, rank);
}

}  // namespace switchyard
