#include "switchyard/buffer.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <thread>
#include <utility>

#include "api/arguments.hpp"
#include "api/segments.hpp"
#include "base/check.hpp"
#include "base/config.hpp"
#include "base/refusal.hpp"
#include "base/trace.hpp"
#include "engine/cpu/engine.hpp"
#include "plan/buffer_plan.hpp"

namespace switchyard {

namespace {

// What options and settings come to, on this rank.
struct Decisions {
  BufferPlan plan;
  WaitPolicy wait;
};

Decisions decide(BufferOptions const& options, int world) {
  check_options(options, world);
  int const cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  std::chrono::milliseconds const usual{config_number(Setting::timeout_ms)};
  Decisions made;
  made.plan = plan_buffer(options, {.world = world, .cores = cores}, config_number(Setting::spin_us));
  made.wait = {.timeout = options.timeout.count() > 0 ? options.timeout : usual, .spin = made.plan.spin};
  return made;
}

// Collective: a rank that cannot go on stops all.
Decisions decide_together(World& world, BufferOptions const& options) {
  Decisions made;
  agree(world, refusal_of([&] { made = decide(options, world.size()); }));
  return made;
}

// The sending side of a dispatch's routing; throws InvalidArgument for an id out of range.
void route(DispatchArgs const& args, BufferFacts const& buffer, detail::Routing& routing) {
  if (args.token_in_rank.given()) {
    routing.table = masked_routes(args.token_in_rank);
    return;
  }
  ExpertSplit const experts(buffer.options.num_experts, buffer.world);
  bool const flat = args.layout == OutputLayout::flat;
  routing.table = flat ? flat_routes(args.topk_idx, experts, buffer.world)
                       : expanded_routes(args.topk_idx, experts, buffer.world);
}

ReceiveShape shape_of(DispatchArgs const& args, OutputLayout layout, std::int64_t top_k) {
  bool const fp8 = args.cast_to_fp8 || args.x.dtype == DType::f8e4m3;
  auto const hidden = static_cast<std::size_t>(args.x.size(1));
  auto const slots = static_cast<std::size_t>(top_k);
  bool const flat = layout == OutputLayout::flat;
  return {.rows = args.num_worst_tokens,
          .row_bytes = hidden * (fp8 ? 1 : size_of(args.x.dtype)),
          .scale_bytes = fp8 ? (hidden + scale_group - 1) / scale_group * sizeof(float) : 0,
          .topk_bytes = args.topk_idx.given() && flat ? slots * size_of(args.topk_idx.dtype) : 0,
          .weight_bytes = args.topk_weights.given() ? (flat ? slots : 1) * sizeof(float) : 0};
}

// The tensors of a dispatch's result, in its block.
void fill_tensors(cpu::DispatchCall const& call, Dispatched& result) {
  auto const& [offset, data, owner] = *call.block;
  ReceiveShape const& shape = call.shape;
  ReceiveBlock const parts = receive_block(shape);
  DispatchArgs const& args = call.args;
  DType const dtype = args.cast_to_fp8 ? DType::f8e4m3 : args.x.dtype;
  std::int64_t const groups = static_cast<std::int64_t>(shape.scale_bytes / sizeof(float));
  std::int64_t const top_k = call.routing->top_k;
  result.x = Tensor({data + parts.x, dtype, {shape.rows, args.x.size(1)}}, owner);
  if (groups > 0) result.scales = Tensor({data + parts.scales, DType::f32, {shape.rows, groups}}, owner);
  if (shape.topk_bytes > 0) {
    result.topk_idx = Tensor({data + parts.topk_idx, args.topk_idx.dtype, {shape.rows, top_k}}, owner);
  }
  if (shape.weight_bytes > 0 && call.routing->layout == OutputLayout::flat) {
    result.topk_weights = Tensor({data + parts.topk_weights, DType::f32, {shape.rows, top_k}}, owner);
  } else if (shape.weight_bytes > 0) {
    result.topk_weights = Tensor({data + parts.topk_weights, DType::f32, {shape.rows}}, owner);
  }
  result.source_token = Tensor({data + parts.source_token, DType::i32, {shape.rows}}, owner);
}

}  // namespace

namespace detail {

class BufferState : public std::enable_shared_from_this<BufferState> {
 public:
  BufferState(Communicator communicator, BufferOptions const& options)
      : communicator_(std::move(communicator)),
        decisions_(decide_together(*communicator_.world(), options)),
        connected_(connect_heap(*communicator_.world(), options, decisions_.plan)),
        facts_{options, communicator_.size(), connected_.buffer_id},
        engine_(connected_.heap, communicator_.world(),
                {.num_experts = options.num_experts, .max_tokens = options.max_tokens, .wait = decisions_.wait}) {}

  // What can be done before the inputs are ready; in worst-case mode that includes the result's tensors.
  cpu::DispatchCall begin(DispatchArgs const& args, Dispatched& result) {
    cpu::DispatchCall call{.args = args};
    call.workers = workers(args.num_workers);
    if (args.handle.given()) {
      call.routing = args.handle.routing();
    } else {
      call.routing = call.fresh = std::make_shared<Routing>();
    }
    result.handle = Handle(call.routing);
    if (args.num_worst_tokens > 0) prepare(call, result);
    return call;
  }

  // Runs `step`; what it throws goes to the peers with the announce.
  template <typename Call, typename Step>
  static void attempt(Call& call, Step const& step) {
    if (!call.refusal) call.refusal = refusal_of(step);
  }

  void prepare(cpu::DispatchCall& call, Dispatched& result) {
    attempt(call, [&] {
      DispatchArgs const& args = call.args;
      check_dispatch(args, facts_);
      if (call.fresh) describe(args, *call.fresh);
      call.shape = shape_of(args, call.routing->layout, call.routing->top_k);
      if (args.num_worst_tokens > 0) allocate_worst(call, result);
    });
  }

  void describe(DispatchArgs const& args, Routing& routing) const {
    routing.buffer_id = facts_.buffer_id;
    routing.layout = args.layout;
    routing.rank = communicator_.rank();
    routing.num_tokens = args.x.size(0);
    routing.expert_alignment = args.expert_alignment;
    routing.top_k = args.topk_idx.given() ? args.topk_idx.size(1) : 0;
  }

  void allocate_worst(cpu::DispatchCall& call, Dispatched& result) {
    engine_.check_usable();
    std::size_t const bytes = receive_block(call.shape).bytes;
    call.block = connected_.heap->allocate(bytes);
    if (!call.block) throw_no_memory(bytes, "num_worst_tokens rows");
    fill_tensors(call, result);
  }

  // On the stream: reads the ids, talks to the peers, moves the rows.
  void dispatch(cpu::DispatchCall& call, Dispatched& result) {
    TraceScope const span("dispatch", communicator_.rank());
    bool const worst = call.args.num_worst_tokens > 0;
    if (!worst) prepare(call, result);
    attempt(call, [&] {
      TraceScope const layout("dispatch/layout", communicator_.rank());
      if (call.fresh) route(call.args, facts_, *call.fresh);
    });
    engine_.dispatch(call);
    if (worst) return;
    fill_tensors(call, result);
    result.tokens_per_expert = result.handle.tokens_per_expert();
  }

  void combine(CombineArgs const& args, Combined& result) {
    TraceScope const span("combine", communicator_.rank());
    cpu::CombineCall call{.args = args};
    call.workers = workers(args.num_workers);
    attempt(call, [&] {
      check_combine(args, facts_);
      prepare_outputs(call, result);
    });
    engine_.combine(call);
  }

  void prepare_outputs(cpu::CombineCall& call, Combined& result) {
    CombineArgs const& args = call.args;
    Routing const& routing = *args.handle.routing();
    call.out = args.out;
    if (!args.out.given()) {
      result.x = allocate(args.x.dtype, {routing.num_tokens, facts_.options.hidden});
      call.out = result.x;
    }
    if (args.topk_weights.given()) {
      result.topk_weights = allocate(DType::f32, {routing.num_tokens, routing.top_k});
      call.out_weights = result.topk_weights;
    }
  }

  Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape) {
    engine_.check_usable();
    require(shape.size() >= 1 && shape.size() <= max_dims, "shape: expected 1..{} dimensions, seen {}", max_dims,
            shape.size());
    for (std::int64_t const extent : shape)
      require(extent >= 0, "shape: expected extents of 0 or more, seen {}", extent);
    std::size_t bytes = size_of(dtype);
    bool too_large = false;
    for (std::int64_t const extent : shape)
      too_large = __builtin_mul_overflow(bytes, static_cast<std::size_t>(extent), &bytes) || too_large;
    if (too_large) throw_no_memory(std::numeric_limits<std::size_t>::max(), "a tensor");
    auto const block = connected_.heap->allocate(bytes);
    if (!block) throw_no_memory(bytes, "a tensor");
    return Tensor({block->data, dtype, shape}, block->owner);
  }

  [[noreturn]] void throw_no_memory(std::size_t bytes, std::string_view what) const {
    auto const& allocator = connected_.heap->allocator();
    throw OutOfMemory(
        fmt::format("symmetric heap: expected {} free bytes for {}, seen {} of {}; free results earlier or raise "
                    "BufferOptions::heap_bytes",
                    bytes, what, allocator.largest_free(), allocator.capacity()),
        {.rank = communicator_.rank()});
  }

  [[nodiscard]] int workers(int of_call) const { return of_call > 0 ? of_call : decisions_.plan.num_workers; }
  [[nodiscard]] BufferFacts const& facts() const noexcept { return facts_; }
  [[nodiscard]] Communicator const& communicator() const noexcept { return communicator_; }
  [[nodiscard]] BlockAllocator const& allocator() const noexcept { return connected_.heap->allocator(); }
  Stream& stream() noexcept { return stream_; }

 private:
  Communicator communicator_;
  Decisions decisions_;
  ConnectedHeap connected_;
  BufferFacts facts_;
  cpu::Engine engine_;
  Stream stream_{"sy-comm"};  // last: drained before anything that its tasks use goes
};

}  // namespace detail

namespace {

// What the copies of a Buffer share: the last one to go waits for the queued work, whose inputs the caller may free
// next. The tasks hold the state itself, so it lives even if a task is what lets go of the last Buffer.
std::shared_ptr<detail::BufferState> draining(std::shared_ptr<detail::BufferState> state) {
  detail::BufferState* const raw = state.get();
  return {raw, [state = std::move(state)](detail::BufferState*) { state->stream().synchronize(); }};
}

}  // namespace

Buffer::Buffer(Communicator const& communicator, BufferOptions const& options)
    : state_(draining(std::make_shared<detail::BufferState>(communicator, options))) {}

Layout Buffer::get_layout(ConstTensorView topk_idx) const {
  BufferFacts const& facts = state_->facts();
  check_topk_idx(topk_idx, facts);
  RouteTable const table = flat_routes(topk_idx, ExpertSplit(facts.options.num_experts, facts.world), facts.world);
  Layout layout;
  layout.num_tokens_per_rank.assign(table.rows_per_rank.begin(), table.rows_per_rank.end());
  layout.num_tokens_per_expert.assign(table.slots_per_expert.begin(), table.slots_per_expert.end());
  auto const world = static_cast<std::size_t>(facts.world);
  layout.is_token_in_rank.resize(static_cast<std::size_t>(table.num_tokens()) * world);
  for (std::int64_t token = 0; token < table.num_tokens(); ++token) {
    for (Route const& route : table.of(token)) {
      layout.is_token_in_rank[static_cast<std::size_t>(token) * world + static_cast<std::size_t>(route.rank)] = 1;
    }
  }
  return layout;
}

Dispatched Buffer::dispatch(ConstTensorView x, ConstTensorView topk_idx, ConstTensorView topk_weights) {
  return dispatch({.x = x, .topk_idx = topk_idx, .topk_weights = topk_weights});
}

Dispatched Buffer::dispatch(DispatchArgs const& args) {
  Dispatched result;
  cpu::DispatchCall call = state_->begin(args, result);
  state_->stream().wait(args.after);
  state_->stream().run([&] { state_->dispatch(call, result); });
  return result;
}

Pending<Dispatched> Buffer::dispatch_async(DispatchArgs const& args) {
  auto result = std::make_shared<Dispatched>();
  auto call = std::make_shared<cpu::DispatchCall>(state_->begin(args, *result));
  state_->stream().wait(args.after);
  return {state_->stream().submit(
              [state = state_->shared_from_this(), call, result] { state->dispatch(*call, *result); }),
          result};
}

Tensor Buffer::combine(ConstTensorView x, Handle const& handle) {
  return combine({.x = x, .handle = handle}).x;
}

Combined Buffer::combine(CombineArgs const& args) {
  Combined result;
  state_->stream().wait(args.after);
  state_->stream().run([&] { state_->combine(args, result); });
  return result;
}

Pending<Combined> Buffer::combine_async(CombineArgs const& args) {
  auto result = std::make_shared<Combined>();
  state_->stream().wait(args.after);
  return {state_->stream().submit(
              [state = state_->shared_from_this(), args, result] { state->combine(args, *result); }),
          result};
}

Tensor Buffer::allocate(DType dtype, std::initializer_list<std::int64_t> shape) {
  return state_->allocate(dtype, shape);
}

Stream& Buffer::stream() noexcept {
  return state_->stream();
}

Communicator const& Buffer::communicator() const noexcept {
  return state_->communicator();
}

BufferOptions const& Buffer::options() const noexcept {
  return state_->facts().options;
}

std::size_t Buffer::heap_bytes_used() const noexcept {
  return state_->allocator().used();
}

std::size_t Buffer::heap_bytes_peak() const noexcept {
  return state_->allocator().peak();
}

}  // namespace switchyard
