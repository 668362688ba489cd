#include <limits>
#include <utility>

#include "base/check.hpp"
#include "call/throughput.hpp"
#include "call/views.hpp"
#include "layout/experts.hpp"
#include "layout/fp8.hpp"

namespace switchyard {

namespace {

// A language binding that refuses a call itself still makes it, without x or without a handle, so that the peers
// do not wait for it.
constexpr char const* or_refused =
    "seen none (or a call was refused before it was made: that rank's error says why)";

void check_scales(DispatchArgs const& args, BufferInfo const& buffer) {
  bool const fp8 = args.x.dtype == DType::f8e4m3;
  require(args.scales.given() == fp8, "scales: expected {} for x of dtype {}, seen {}", fp8 ? "a tensor" : "none",
          name_of(args.x.dtype), args.scales.given() ? "a tensor" : "none");
  require(!(fp8 && args.cast_to_fp8), "cast_to_fp8: expected x of dtype bf16, f16 or f32, seen f8e4m3");
  if (!fp8) return;
  check_dtype("scales", args.scales, {DType::f32, DType::i32});
  std::int64_t const groups = scale_groups(args.x.size(1));
  bool const packed = args.scales.dtype == DType::i32;
  check_shape("scales", args.scales, {args.x.size(0), packed ? any : groups}, buffer.device);
  require(args.scales.size(1) >= 1 && args.scales.size(1) <= groups, "scales: dimension 1: expected 1..{}, seen {}",
          groups, args.scales.size(1));
  check_aligned("scales", args.scales);
}

void check_handle(Handle const& handle, BufferInfo const& buffer) {
  // `dispatch` comes first: until it is set, the dispatch may still be filling in the rest.
  require(handle.routing()->dispatch != 0,
          "handle: expected that of a finished dispatch, seen one whose dispatch failed or is still queued");
  require(handle.routing()->buffer_id == buffer.buffer_id,
          "handle: expected a handle of this buffer, seen one of another");
}

void check_routing_choice(DispatchArgs const& args) {
  bool const ids_alone = args.topk_idx.given() && !args.handle.given();  // with a handle they only travel along
  int const given = (ids_alone ? 1 : 0) + (args.token_in_rank.given() ? 1 : 0) + (args.handle.given() ? 1 : 0);
  require(given == 1, "routing: expected exactly one of topk_idx, token_in_rank and handle, seen {}", given);
  require(!args.topk_weights.given() || args.topk_idx.given(),
          "topk_weights: expected topk_idx to go with it, seen none");
}

void check_ids(DispatchArgs const& args, BufferInfo const& buffer) {
  std::int64_t const tokens = args.x.size(0);
  check_topk_idx(args.topk_idx, buffer);
  require(args.topk_idx.size(0) == tokens, "topk_idx: dimension 0: expected {} as in x, seen {}", tokens,
          args.topk_idx.size(0));
  if (!args.topk_weights.given()) return;
  check_shape("topk_weights", args.topk_weights, {tokens, buffer.options.top_k}, buffer.device);
  check_dtype("topk_weights", args.topk_weights, {DType::f32});
  check_aligned("topk_weights", args.topk_weights);
}

void check_cached(DispatchArgs const& args, BufferInfo const& buffer) {
  require(args.num_worst_tokens == 0, "num_worst_tokens: expected 0 with a handle, seen {}", args.num_worst_tokens);
  check_handle(args.handle, buffer);
  require(args.x.size(0) == args.handle.num_tokens(),
          "x: dimension 0: expected {} as in the dispatch of the handle, seen {}", args.handle.num_tokens(),
          args.x.size(0));
  if (!args.topk_idx.given()) return;
  require(args.handle.routing()->top_k > 0,
          "topk_idx: expected none with the handle of a dispatch by token_in_rank, seen a tensor");
  check_ids(args, buffer);
}

void check_fresh(DispatchArgs const& args, BufferInfo const& buffer) {
  std::int64_t const tokens = args.x.size(0);
  if (args.topk_idx.given()) {
    check_ids(args, buffer);
  } else {
    check_shape("token_in_rank", args.token_in_rank, {tokens, buffer.num_ranks}, buffer.device);
    check_dtype("token_in_rank", args.token_in_rank, {DType::u8});
    require(args.layout == OutputLayout::flat,
            "topk_idx: expected a tensor in layout expanded, seen token_in_rank");
    require(args.num_worst_tokens == 0, "num_worst_tokens: expected topk_idx to go with it, seen token_in_rank");
  }
}

// The weights that a combine sends back, in the rows of the dispatch.
void check_returned_weights(CombineArgs const& args, std::int64_t rows, Device device) {
  ConstTensorView const& weights = args.topk_weights;
  detail::Routing const& routing = *args.handle.routing();
  check_dtype("topk_weights", weights, {DType::f32});
  if (args.weights_of_all_ranks) {
    require(routing.layout == OutputLayout::flat,
            "weights_of_all_ranks: expected false in layout expanded, seen true");
    check_shape("topk_weights", weights, {rows, any}, device);
    require(weights.size(1) >= 1 && weights.size(1) <= max_top_k,
            "topk_weights: dimension 1: expected 1..{}, seen {}", max_top_k, weights.size(1));
    return check_rows("topk_weights", weights);
  }
  require(routing.top_k > 0, "topk_weights: expected none after a dispatch without topk_idx, seen a tensor");
  bool const flat = routing.layout == OutputLayout::flat;
  if (flat) check_shape("topk_weights", weights, {rows, routing.top_k}, device);
  if (!flat) check_shape("topk_weights", weights, {rows}, device);
  check_rows("topk_weights", weights);
}

// [L], to which rows are added.
void check_numbers_of_experts(TensorView const& to, BufferInfo const& buffer) {
  std::int64_t const local = ExpertSplit(buffer.options.num_experts, buffer.num_ranks).count(buffer.rank);
  check_shape("received_per_expert", to, {local}, buffer.device);
  check_dtype("received_per_expert", to, {DType::i32, DType::i64});
  check_aligned("received_per_expert", to);
  require(local <= 1 || to.stride(0) != 0,
          "received_per_expert: stride 0: expected a number for each expert, seen one for all (stride 0)");
}

void check_counted(DispatchArgs const& args, BufferInfo const& buffer) {
  if (!args.received_per_expert.given()) return;
  bool const by_ids = args.handle.given() ? args.handle.routing()->top_k > 0 : args.topk_idx.given();
  require(by_ids, "received_per_expert: expected it in a dispatch by topk_idx, seen it in one by token_in_rank");
  check_numbers_of_experts(args.received_per_expert, buffer);
}

}  // namespace

void check_topk_idx(ConstTensorView const& topk_idx, BufferInfo const& buffer) {
  check_shape("topk_idx", topk_idx, {any, buffer.options.top_k}, buffer.device);
  check_dtype("topk_idx", topk_idx, {DType::i64, DType::i32});
  check_aligned("topk_idx", topk_idx);
}

void check_dispatch(DispatchArgs const& args, BufferInfo const& buffer) {
  require(args.x.given(), "x: expected a tensor, {}", or_refused);
  check_shape("x", args.x, {any, buffer.options.hidden}, buffer.device);
  check_dtype("x", args.x, {DType::bf16, DType::f16, DType::f32, DType::f8e4m3});
  check_rows("x", args.x);
  require(args.x.size(0) <= buffer.options.max_tokens, "x: dimension 0: expected at most max_tokens = {}, seen {}",
          buffer.options.max_tokens, args.x.size(0));
  check_scales(args, buffer);
  check_routing_choice(args);
  require(args.expert_alignment >= 1 && args.expert_alignment <= (1 << 16),
          "expert_alignment: expected 1..{}, seen {}", 1 << 16, args.expert_alignment);
  constexpr std::int64_t most_rows = std::numeric_limits<std::int32_t>::max();
  require(args.num_worst_tokens >= 0 && args.num_worst_tokens <= most_rows,
          "num_worst_tokens: expected 0..{}, seen {}", most_rows, args.num_worst_tokens);
  check_workers(args.num_workers);
  if (args.handle.given()) {
    check_cached(args, buffer);
  } else {
    check_fresh(args, buffer);
  }
  check_counted(args, buffer);
}

void check_received(Handle const& handle, TensorView const& to, BufferInfo const& buffer) {
  require(handle.given(), "handle: expected the handle of a dispatch, seen none");
  check_handle(handle, buffer);
  require(handle.routing()->top_k > 0,
          "handle: expected that of a dispatch by topk_idx, seen one by token_in_rank");
  check_numbers_of_experts(to, buffer);
}

void check_source(ConstTensorView const& source, BufferInfo const& buffer) {
  check_shape("source", source, {any, any}, buffer.device);
}

void check_by_column(ConstTensorView const& scales, BufferInfo const& buffer) {
  check_shape("scales", scales, {any, any}, buffer.device);
  check_dtype("scales", scales, {DType::f32, DType::i32});
  check_aligned("scales", scales);
}

void check_combine(CombineArgs const& args, BufferInfo const& buffer) {
  require(args.handle.given(), "handle: expected the handle of a dispatch, {}", or_refused);
  check_handle(args.handle, buffer);
  detail::Routing const& routing = *args.handle.routing();
  std::int64_t const rows = routing.rows_of_rank[static_cast<std::size_t>(routing.rank)];
  check_shape("x", args.x, {rows, buffer.options.hidden}, buffer.device);
  check_dtype("x", args.x, {DType::bf16, DType::f16, DType::f32});
  check_rows("x", args.x);
  if (args.topk_weights.given()) check_returned_weights(args, rows, buffer.device);
  if (args.row_weights.given()) {
    check_shape("row_weights", args.row_weights, {rows}, buffer.device);
    check_dtype("row_weights", args.row_weights, {DType::f32});
    check_aligned("row_weights", args.row_weights);
  }
  for (auto const& [name, view] : {std::pair{"bias0", args.bias0}, std::pair{"bias1", args.bias1},
                                   std::pair{"out", ConstTensorView(args.out)}}) {
    if (!view.given()) continue;
    check_shape(name, view, {routing.num_tokens, buffer.options.hidden}, buffer.device);
    check_dtype(name, view, {args.x.dtype});
    check_rows(name, view);
  }
  if (args.out.given()) check_writable_rows("out", args.out);
  check_workers(args.num_workers);
}

}  // namespace switchyard
