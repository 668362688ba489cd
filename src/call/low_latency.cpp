#include "call/low_latency.hpp"

#include <algorithm>

#include "layout/experts.hpp"
#include "layout/fp8.hpp"
#include "layout/logfmt.hpp"

namespace switchyard {

namespace {

// An output row has room for bf16, and for LogFMT-10 codes, which make short rows longer.
std::size_t output_bytes_of(std::size_t hidden) {
  return std::max(2 * hidden, logfmt_row_bytes(hidden));
}

// Makes the tensors of one bay.
class BayTensors {
 public:
  BayTensors(BayPlace const& place, std::shared_ptr<detail::Lease> lease)
      : place_(place), lease_(std::move(lease)) {}

  [[nodiscard]] Tensor at(std::size_t offset, DType dtype, std::initializer_list<std::int64_t> shape) const {
    TensorView view(place_.bay + offset, dtype, shape);
    view.device = place_.device;
    return {view, lease_};
  }

  // The same with the last two dimensions in column-major order.
  [[nodiscard]] Tensor columns_at(std::size_t offset, DType dtype,
                                  std::initializer_list<std::int64_t> shape) const {
    TensorView view(place_.bay + offset, dtype, shape);
    view.device = place_.device;
    view.strides[1] = 1;
    view.strides[2] = view.shape[1];
    return {view, lease_};
  }

 private:
  BayPlace const& place_;
  std::shared_ptr<detail::Lease> lease_;
};

}  // namespace

SlotRows slot_rows_of(LowLatencyDispatchArgs const& args) noexcept {
  SlotRows rows{.layout = args.layout,
                .dtype = args.cast == SendCast::none ? args.x.dtype : DType::f8e4m3,
                .elements = args.x.size(1),
                .weights = args.topk_weights.given()};
  std::int64_t const groups = scale_groups(rows.elements);
  if (rows.dtype == DType::f8e4m3) rows.scale_elements = groups;
  if (args.cast == SendCast::fp8_ue8m0) {
    rows.scale_dtype = DType::i32;
    rows.scale_elements = (groups + 3) / 4;
  }
  if (args.x.dtype == DType::u8 && args.scales.given()) {
    rows.scale_dtype = DType::u8;
    rows.scale_elements = args.scales.size(1);
  }
  return rows;
}

// The dtype is the caller's, before a cast.
std::uint64_t dispatch_digest(LowLatencyDispatchArgs const& args) noexcept {
  SlotRows const rows = slot_rows_of(args);
  return digest_of({.operation = 1,
                    .layout = static_cast<std::uint64_t>(args.layout),
                    .row_bytes = rows.row_bytes(),
                    .scale_bytes = rows.scale_bytes(),
                    .dtype = static_cast<std::uint64_t>(args.x.dtype),
                    .cast = static_cast<std::uint64_t>(args.cast),
                    .weights = rows.weights ? 1U : 0U});
}

std::uint64_t combine_digest(LowLatencyCombineArgs const& args, SlotLayout layout) noexcept {
  return digest_of({.operation = 2,
                    .layout = static_cast<std::uint64_t>(layout),
                    .row_bytes = static_cast<std::uint64_t>(args.x.size(2)) * size_of(args.x.dtype),
                    .dtype = static_cast<std::uint64_t>(args.x.dtype),
                    .cast = static_cast<std::uint64_t>(args.coding)});
}

SlotSizes slot_sizes_of(LowLatencyOptions const& options, int num_ranks) {
  auto const hidden = static_cast<std::size_t>(options.hidden);
  std::size_t const usual_scales = static_cast<std::size_t>(scale_groups(options.hidden)) * sizeof(float);
  return {
      .num_ranks = num_ranks,
      .num_experts = options.num_experts,
      .max_local_experts = ExpertSplit(options.num_experts, num_ranks).max_count(),
      .top_k = options.top_k,
      .frames = options.max_results,
      .max_tokens = options.max_tokens,
      .row_bytes = options.max_row_bytes > 0 ? static_cast<std::size_t>(options.max_row_bytes) : 2 * hidden,
      .scale_bytes = options.max_scale_bytes > 0 ? static_cast<std::size_t>(options.max_scale_bytes) : usual_scales,
      .output_bytes = output_bytes_of(hidden)};
}

BufferOptions buffer_options_of(LowLatencyOptions const& options, std::size_t heap_bytes) {
  return {.max_tokens = options.max_tokens,
          .hidden = options.hidden,
          .num_experts = options.num_experts,
          .top_k = options.top_k,
          .heap_bytes = heap_bytes,
          .num_workers = options.num_workers,
          .timeout = options.timeout,
          .engine = options.engine,
          .device = options.device,
          .num_sms = options.num_sms};
}

std::array<SizeOption, 7> size_options_of(LowLatencyOptions const& options) {
  return {{{"max_tokens", options.max_tokens},
           {"hidden", options.hidden},
           {"num_experts", options.num_experts},
           {"top_k", options.top_k},
           {"max_results", options.max_results},
           {"max_row_bytes", options.max_row_bytes},
           {"max_scale_bytes", options.max_scale_bytes}}};
}

LowLatencyReceived received_in(BayPlace const& place, SlotSizes const& sizes, SlotRows const& rows,
                               std::shared_ptr<detail::Lease> const& lease) {
  SlotLayoutBytes const parts = slot_layout(sizes);
  BayTensors const tensors(place, lease);
  bool const by_expert = rows.layout == SlotLayout::expert_major;
  std::int64_t const num_ranks = sizes.num_ranks;
  std::int64_t const groups = by_expert ? place.local_experts : num_ranks;
  std::int64_t const slots = by_expert ? num_ranks * sizes.max_tokens : sizes.max_tokens;
  LowLatencyReceived result;
  result.handle = LowLatencyHandle(lease);
  result.x = tensors.at(parts.x, rows.dtype, {groups, slots, rows.elements});
  if (rows.scale_elements > 0 && rows.column_major()) {
    result.scales = tensors.columns_at(parts.scales, rows.scale_dtype, {groups, slots, rows.scale_elements});
  } else if (rows.scale_elements > 0) {
    result.scales = tensors.at(parts.scales, rows.scale_dtype, {groups, slots, rows.scale_elements});
  }
  result.counts = tensors.at(parts.counts, DType::i32, {groups});
  result.source_token = tensors.at(parts.source_token, DType::i32, {groups, slots});
  if (by_expert) {
    result.ranges = tensors.at(parts.ranges, DType::i64, {groups, num_ranks});
    return result;
  }
  result.topk_idx = tensors.at(parts.topk_idx, DType::i32, {num_ranks, slots, sizes.top_k});
  if (rows.weights)
    result.topk_weights = tensors.at(parts.topk_weights, DType::f32, {num_ranks, slots, sizes.top_k});
  return result;
}

Tensor outputs_in(BayPlace const& place, SlotSizes const& sizes, DType dtype, std::int64_t hidden,
                  std::shared_ptr<detail::Lease> const& lease) {
  bool const by_expert = lease->layout == SlotLayout::expert_major;
  std::int64_t const groups = by_expert ? place.local_experts : sizes.num_ranks;
  std::int64_t const slots = by_expert ? sizes.num_ranks * sizes.max_tokens : sizes.max_tokens;
  return BayTensors(place, lease).at(slot_layout(sizes).outputs, dtype, {groups, slots, hidden});
}

}  // namespace switchyard
