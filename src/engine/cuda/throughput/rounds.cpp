#include "engine/cuda/throughput/rounds.hpp"

#include <utility>
#include <vector>

#include "base/check.hpp"
#include "call/heap_tensors.hpp"
#include "engine/cuda/host/rows.hpp"
#include "memory/device/cuda_check.hpp"
#include "plan/round_plan.hpp"

namespace switchyard::detail {

namespace {

// Rows first..first + count - 1.
template <typename View>
View rows_of(View view, std::int64_t first, std::int64_t count) {
  if (!view.given()) return view;
  auto const bytes = static_cast<std::int64_t>(size_of(view.dtype));
  // By bytes: the view knows no type. Elements of a slice lie in the tensor, so the sum does not leave it.
  view.data = const_cast<std::byte*>(static_cast<std::byte const*>(view.data)) + first * view.stride(0) * bytes;
  view.shape[0] = count;
  return view;
}

// Adjacent rows of two tensors of the same row length; strides and length in bytes.
struct RowsCopy {
  std::byte* to;
  std::int64_t to_stride;
  std::byte const* from;
  std::int64_t from_stride;
  std::int64_t row_bytes;
};

void copy_rows(RowsCopy const& copy, std::int64_t rows, cudaStream_t stream) {
  if (copy.row_bytes == 0 || rows == 0) return;
  // A copy of many rows wants them apart; a caller's may lie on one another.
  bool const apart = copy.from_stride >= copy.row_bytes && copy.to_stride >= copy.row_bytes;
  std::int64_t const at_once = apart ? rows : 1;
  auto const bytes = static_cast<std::size_t>(copy.row_bytes);
  for (std::int64_t row = 0; row < rows; row += at_once) {
    check_cuda(cudaMemcpy2DAsync(
                   copy.to + row * copy.to_stride, apart ? static_cast<std::size_t>(copy.to_stride) : bytes,
                   copy.from + row * copy.from_stride, apart ? static_cast<std::size_t>(copy.from_stride) : bytes,
                   bytes, static_cast<std::size_t>(at_once), cudaMemcpyDeviceToDevice, stream),
               "moving the rows of a round");
  }
}

RowsCopy copy_between(ConstTensorView const& from, TensorView const& to) {
  return {.to = static_cast<std::byte*>(to.data),
          .to_stride = row_stride_of(to),
          .from = static_cast<std::byte const*>(from.data),
          .from_stride = row_stride_of(from),
          .row_bytes = static_cast<std::int64_t>(row_bytes_of(to))};
}

// From a round's tensor to the whole one.
void spread(ConstTensorView const& part, TensorView const& whole, std::vector<RowSegment> const& segments,
            cudaStream_t stream) {
  if (!part.given()) return;
  for (RowSegment const& segment : segments) {
    copy_rows(copy_between(rows_of(part, segment.part, segment.rows), rows_of(whole, segment.whole, segment.rows)),
              segment.rows, stream);
  }
}

// And back.
void collect(ConstTensorView const& whole, TensorView const& part, std::vector<RowSegment> const& segments,
             cudaStream_t stream) {
  for (RowSegment const& segment : segments) {
    copy_rows(copy_between(rows_of(whole, segment.whole, segment.rows), rows_of(part, segment.part, segment.rows)),
              segment.rows, stream);
  }
}

// The whole result: memory outside of the heap, and the tensors in it.
struct Whole {
  DispatchCall call;
  Dispatched result;
};

void fill(std::byte* at, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes > 0) check_cuda(cudaMemsetAsync(at, value, bytes, stream), "clearing rows that only pad");
}

// Rows that no round writes are as the engine leaves them.
void fill_padding(Whole const& whole, cudaStream_t stream) {
  ReceiveShape const& shape = whole.call.shape;
  ReceiveBlock const parts = receive_block(shape);
  auto const rows = static_cast<std::size_t>(shape.rows);
  std::byte* const base = whole.call.block->data;
  fill(base + parts.source_token, 0xff, rows * sizeof(std::int32_t), stream);
  fill(base + parts.topk_weights, 0, rows * shape.weight_bytes, stream);
  if (!whole.call.args.zero_padding) return;
  fill(base + parts.x, 0, rows * shape.row_bytes, stream);
  fill(base + parts.scales, 0, rows * shape.scale_bytes, stream);
}

// On failure this rank has a refusal, which the first round tells all.
std::optional<Refusal> make_whole(RoundTools const& tools, Whole& whole, std::int64_t rows) {
  return refusal_of([&] {
    whole.call.shape.rows = rows;
    auto const owner = tools.maker.outside_of_heap(receive_block(whole.call.shape).bytes);
    whole.call.block = SymmetricHeap::Block{.offset = 0, .data = owner.get(), .owner = owner};
    fill_padding(whole, tools.engine.stream());
    fill_tensors(whole.call, Device::cuda, whole.result);
  });
}

void take_over(Dispatched const& part, Dispatched const& whole, std::vector<RowSegment> const& segments,
               cudaStream_t stream) {
  spread(part.x, whole.x.view(), segments, stream);
  spread(part.scales, whole.scales.view(), segments, stream);
  spread(part.topk_idx, whole.topk_idx.view(), segments, stream);
  spread(part.topk_weights, whole.topk_weights.view(), segments, stream);
  spread(part.source_token, whole.source_token.view(), segments, stream);
}

DispatchArgs slice_of(DispatchArgs args, std::int64_t first, std::int64_t count) {
  args.x = rows_of(args.x, first, count);
  args.scales = rows_of(args.scales, first, count);
  args.topk_idx = rows_of(args.topk_idx, first, count);
  args.topk_weights = rows_of(args.topk_weights, first, count);
  args.token_in_rank = rows_of(args.token_in_rank, first, count);
  args.after = {};
  return args;
}

// Ranges of tokens halve until a round fits into the room of every rank: all ranks see the same refusals, so all
// halve alike. Nothing else that a round takes lies in the heap, and the room stays with the handle: whether a
// round fits does not depend on what else the heap has to hold, now or later.
class Rounds {
 public:
  // The device side of the handle is only needed for its counts.
  Rounds(RoundTools const& tools, DispatchArgs const& args, std::shared_ptr<Routing> counted)
      : tools_(tools), args_(args), routing_(std::move(counted)), merge_(total(), alignment()) {
    routing_->device = nullptr;
    routing_->device_owner.reset();
  }

  Dispatched run() {
    whole_.call.args = args_;
    whole_.call.routing = routing_;
    whole_.call.shape = shape_of(args_, args_.layout, routing_->top_k);
    refusal_ = make_whole(tools_, whole_, routing_->placement.rows);
    if (!refusal_) refusal_ = refusal_of([&] { routing_->room = tools_.maker.take_room(bytes_of_all()); });
    run({.number = 0, .depth = 1});
    run({.number = 1, .depth = 1});
    auto const own = static_cast<std::size_t>(tools_.heap.rank());
    routing_->rows_of_rank.assign(static_cast<std::size_t>(tools_.heap.num_ranks()), -1);
    routing_->rows_of_rank[own] = routing_->placement.rows;
    routing_->dispatch = routing_->rounds.front().routing->dispatch;
    whole_.result.handle = Handle(routing_);
    whole_.result.tokens_per_expert = whole_.result.handle.tokens_per_expert();
    return std::move(whole_.result);
  }

 private:
  // A range of every rank's tokens: the number-th of 2^depth.
  struct Range {
    std::int64_t number;
    int depth;
    [[nodiscard]] std::int64_t begin(std::int64_t tokens) const { return tokens * number >> depth; }
    [[nodiscard]] std::int64_t end(std::int64_t tokens) const { return tokens * (number + 1) >> depth; }
  };

  [[nodiscard]] RowCounts total() const { return tools_.engine.counts_of(*routing_); }
  [[nodiscard]] int alignment() const {
    return routing_->layout == OutputLayout::expanded ? routing_->expert_alignment : 1;
  }
  // More than any round takes.
  [[nodiscard]] std::size_t bytes_of_all() const {
    return round_bytes({.hidden = tools_.options.hidden, .top_k = routing_->top_k}, routing_->placement.rows);
  }
  // No rank has more than one token in a range.
  [[nodiscard]] bool is_smallest(Range const& range) const {
    return std::int64_t{1} << range.depth >= tools_.options.max_tokens;
  }

  void run(Range const& range) {
    std::int64_t const begin = range.begin(args_.x.size(0));
    std::int64_t const count = range.end(args_.x.size(0)) - begin;
    Dispatched part;
    try {
      part = tools_.maker.dispatch_round(slice_of(args_, begin, count),
                                         {.is_round = true,
                                          .first_token = begin,
                                          .range = (std::int64_t{1} << range.depth) + range.number,
                                          .room = routing_->room,
                                          .refusal = refusal_});
    } catch (OutOfMemory const&) {
      if (is_smallest(range)) throw;
      run({.number = 2 * range.number, .depth = range.depth + 1});
      run({.number = 2 * range.number + 1, .depth = range.depth + 1});
      return;
    }
    auto segments = merge_.add(tools_.engine.counts_of(*part.handle.routing()));
    take_over(part, whole_.result, segments, tools_.engine.stream());
    routing_->rounds.push_back(
        {.routing = part.handle.routing(), .first_token = begin, .segments = std::move(segments)});
  }

  RoundTools const& tools_;
  DispatchArgs const& args_;
  std::shared_ptr<Routing> routing_;
  RowMerge merge_;
  Whole whole_{};
  std::optional<Refusal> refusal_;
};

CombineArgs slice_of(CombineArgs args, std::int64_t first, std::int64_t count) {
  args.bias0 = rows_of(args.bias0, first, count);
  args.bias1 = rows_of(args.bias1, first, count);
  args.out = rows_of(args.out, first, count);
  args.after = {};
  return args;
}

// 0: not given.
std::size_t bytes_a_row(ConstTensorView const& view) {
  return view.given() ? row_bytes_of(view) : 0;
}

Tensor in_pool(RoundTools const& tools, DType dtype, std::initializer_list<std::int64_t> shape) {
  std::size_t bytes = size_of(dtype);
  for (std::int64_t const extent : shape) bytes *= static_cast<std::size_t>(extent);
  auto const owner = tools.maker.outside_of_heap(bytes);
  TensorView view(owner.get(), dtype, shape);
  view.device = Device::cuda;
  return {view, owner};
}

class CombineRounds {
 public:
  CombineRounds(RoundTools const& tools, CombineArgs const& args, std::optional<Refusal> refusal)
      : tools_(tools), args_(args), routing_(*args.handle.routing()), refusal_(std::move(refusal)) {}

  Combined run() {
    if (!refusal_) refusal_ = refusal_of([&] { prepare(); });
    for (Round const& round : routing_.rounds) run(round);
    return std::move(result_);
  }

 private:
  void prepare() {
    if (!args_.out.given()) {
      result_.x = in_pool(tools_, args_.x.dtype, {routing_.num_tokens, args_.x.size(1)});
      args_.out = result_.x.view();
    }
    if (args_.topk_weights.given())
      result_.topk_weights = in_pool(tools_, DType::f32, {routing_.num_tokens, returned_slots(args_)});
  }

  // The rows of a round, from `at` in the room on.
  [[nodiscard]] ConstTensorView staged(ConstTensorView const& whole, std::size_t at, Round const& round) const {
    if (!whole.given()) return whole;
    std::int64_t const rows = round.routing->placement.rows;
    std::byte* const data = routing_.room.data + at;
    TensorView view = whole.ndim == 2 ? TensorView(data, whole.dtype, {rows, whole.size(1)})
                                      : TensorView(data, whole.dtype, {rows});
    view.device = Device::cuda;
    collect(whole, view, round.segments, tools_.engine.stream());
    return view;
  }

  // What peers pull. The copies come after the last round's kernel in the stream, which ends when peers have read
  // all.
  void stage(Round const& round, CombineArgs& part) const {
    StagedRows const at = staged_rows({.rows = round.routing->placement.rows,
                                       .row_bytes = bytes_a_row(args_.x),
                                       .topk_weight_bytes = bytes_a_row(args_.topk_weights),
                                       .row_weight_bytes = bytes_a_row(args_.row_weights)});
    if (at.bytes > routing_.room.bytes) throw_no_room(tools_.heap, at.bytes, "the rows of a round");
    part.x = staged(args_.x, at.x, round);
    part.topk_weights = staged(args_.topk_weights, at.topk_weights, round);
    part.row_weights = staged(args_.row_weights, at.row_weights, round);
  }

  void run(Round const& round) {
    std::int64_t const tokens = round.routing->num_tokens;
    CombineArgs part = slice_of(args_, round.first_token, tokens);
    part.handle = Handle(round.routing);
    if (!refusal_) refusal_ = refusal_of([&] { stage(round, part); });
    TensorView weights{};
    if (result_.topk_weights.given()) weights = rows_of(result_.topk_weights.view(), round.first_token, tokens);
    tools_.maker.combine_round(part, {.is_round = true, .out_weights = weights, .refusal = refusal_});
    // Peers pull from the room until the kernel ends, even if the caller releases the handle before.
    RoundRoom const& room = routing_.room;
    tools_.engine.keep_until_done({.offset = room.offset, .data = room.data, .owner = room.owner});
  }

  RoundTools const& tools_;
  CombineArgs args_;
  Routing const& routing_;
  std::optional<Refusal> refusal_;
  Combined result_;
};

}  // namespace

Dispatched dispatch_in_rounds(RoundTools const& tools, DispatchArgs const& args, std::shared_ptr<Routing> counted) {
  return Rounds(tools, args, std::move(counted)).run();
}

Dispatched dispatch_in_same_rounds(RoundTools const& tools, DispatchArgs const& args,
                                   std::optional<Refusal> refusal) {
  std::shared_ptr<Routing const> const routing = args.handle.routing();
  Whole whole{};
  whole.call.args = args;
  whole.call.routing = routing;
  whole.call.shape = shape_of(args, routing->layout, routing->top_k);
  if (!refusal) refusal = make_whole(tools, whole, routing->placement.rows);
  for (Round const& round : routing->rounds) {
    DispatchArgs slice = slice_of(args, round.first_token, round.routing->num_tokens);
    slice.handle = Handle(round.routing);
    Dispatched const part = tools.maker.dispatch_round(
        slice, {.is_round = true, .first_token = round.first_token, .room = routing->room, .refusal = refusal});
    take_over(part, whole.result, round.segments, tools.engine.stream());
  }
  whole.result.handle = args.handle;
  whole.result.tokens_per_expert = args.handle.tokens_per_expert();
  return std::move(whole.result);
}

Combined combine_in_rounds(RoundTools const& tools, CombineArgs const& args, std::optional<Refusal> refusal) {
  return CombineRounds(tools, args, std::move(refusal)).run();
}

}  // namespace switchyard::detail
