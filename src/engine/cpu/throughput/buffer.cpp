// Buffer on the CPU engine.
#include <cstring>
#include <utility>

#include "base/trace.hpp"
#include "call/heap_tensors.hpp"
#include "call/hosted/calls.hpp"
#include "call/hosted/host_layout.hpp"
#include "call/hosted/route.hpp"
#include "call/reset.hpp"
#include "call/setup.hpp"
#include "call/throughput.hpp"
#include "call/throughput_engine.hpp"
#include "call/views.hpp"
#include "engine/cpu/throughput/mover.hpp"
#include "job/job.hpp"
#include "node/host_heap.hpp"

namespace switchyard::detail {

namespace {

// Adds what each local expert has received.
void add_rows(Handle const& handle, TensorView const& to) {
  std::vector<std::int64_t> const& rows = handle.real_tokens_per_expert();
  for (std::size_t expert = 0; expert < rows.size(); ++expert) {
    std::int64_t const at = static_cast<std::int64_t>(expert) * to.stride(0);
    if (to.dtype == DType::i64) {
      static_cast<std::int64_t*>(to.data)[at] += rows[expert];
    } else {
      static_cast<std::int32_t*>(to.data)[at] += static_cast<std::int32_t>(rows[expert]);
    }
  }
}

class CpuBuffer final : public ThroughputEngine {
 public:
  CpuBuffer(Communicator communicator, BufferOptions const& options)
      : communicator_(std::move(communicator)),
        setup_(agree_on_host_setup(*communicator_.job(), options)),
        connected_(connect_heap(*communicator_.job(), *communicator_.job()->node(), options, setup_.plan)),
        info_{options, communicator_.size(), connected_.buffer_id, Device::cpu, communicator_.rank()},
        mover_(connected_.heap),
        engine_({connected_.heap, connected_.heap}, communicator_.job(), mover_,
                {.num_experts = options.num_experts,
                 .max_tokens = options.max_tokens,
                 .wait = setup_.wait,
                 .rings = setup_.rings,
                 .f32_partials = options.f32_partials}) {}

  Layout get_layout(ConstTensorView topk_idx, std::uintptr_t) override {
    check_topk_idx(topk_idx, info_);
    return host_layout(topk_idx, info_.options.num_experts, communicator_.job()->topology());
  }

  Pending<Layout> get_layout_async(ConstTensorView topk_idx, std::uintptr_t cuda_stream) override {
    return {Event(), std::make_shared<Layout>(get_layout(topk_idx, cuda_stream))};
  }

  Dispatched dispatch(DispatchArgs const& args) override {
    Dispatched result;
    DispatchCall call = begin(args, result);
    stream_.wait(args.after);
    stream_.run([&] { run(call, result); });
    return result;
  }

  Pending<Dispatched> dispatch_async(DispatchArgs const& args) override {
    auto result = std::make_shared<Dispatched>();
    auto call = std::make_shared<DispatchCall>(begin(args, *result));
    stream_.wait(args.after);
    return {stream_.submit([state = self(), call, result] { state->run(*call, *result); }), result};
  }

  Combined combine(CombineArgs const& args) override {
    Combined result;
    stream_.wait(args.after);
    stream_.run([&] { run(args, result); });
    return result;
  }

  Pending<Combined> combine_async(CombineArgs const& args) override {
    auto result = std::make_shared<Combined>();
    stream_.wait(args.after);
    return {stream_.submit([state = self(), args, result] { state->run(args, *result); }), result};
  }

  Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape) override {
    engine_.check_usable();
    Tensor tensor = allocate_tensor(*connected_.heap, dtype, shape, Device::cpu);
    // A call that has failed meanwhile has released a block into which late peers may write until the reset.
    engine_.check_usable();
    return tensor;
  }

  void synchronize() override { stream_.synchronize(); }
  // It runs on the stream, behind all queued work, which is over then.
  void reset() override {
    stream_.run([this] { reset_together(*communicator_.job(), engine_); });
  }
  void drain() noexcept override { stream_.synchronize(); }

  bool add_received(Handle const& handle, TensorView const& to, std::uintptr_t /*cuda_stream*/) override {
    check_received(handle, to, info_);
    add_rows(handle, to);
    return true;
  }

  Tensor by_column(ConstTensorView const& scales, std::uintptr_t /*cuda_stream*/) override {
    check_by_column(scales, info_);
    engine_.check_usable();
    Tensor copy = room_by_column(*connected_.heap, scales, Device::cpu);
    engine_.check_usable();  // see allocate()
    if (!copy.given()) return copy;
    auto const* const from = static_cast<std::uint32_t const*>(scales.data);
    auto* const to = copy.data<std::uint32_t>();
    for (std::int64_t row = 0; row < scales.size(0); ++row) {
      for (std::int64_t column = 0; column < scales.size(1); ++column)
        to[row + column * copy.view().stride(1)] = from[row * scales.stride(0) + column * scales.stride(1)];
    }
    return copy;
  }

  Tensor copy(ConstTensorView const& source, std::uintptr_t /*cuda_stream*/) override {
    check_source(source, info_);
    engine_.check_usable();
    Tensor copy = room_for_copy(*connected_.heap, source, Device::cpu);
    engine_.check_usable();  // see allocate()
    if (copy.given() && source.numel() > 0) std::memcpy(copy.view().data, source.data, bytes_without_gaps(source));
    return copy;
  }

  [[nodiscard]] WireCount wire_count() const override { return engine_.wire_count(); }

  void count_calls(bool on) override { engine_.counter().set_on(on); }
  [[nodiscard]] CallCounts call_counts() const override { return engine_.counter().sums(); }

  Stream& stream() override { return stream_; }
  [[nodiscard]] std::uintptr_t cuda_stream() const noexcept override { return 0; }
  [[nodiscard]] EngineKind engine() const noexcept override { return EngineKind::cpu; }
  [[nodiscard]] Communicator const& communicator() const noexcept override { return communicator_; }
  [[nodiscard]] BufferOptions const& options() const noexcept override { return info_.options; }
  [[nodiscard]] SymmetricHeap& heap() const noexcept override { return *connected_.heap; }

 private:
  std::shared_ptr<CpuBuffer> self() { return std::static_pointer_cast<CpuBuffer>(shared_from_this()); }

  // Does what can be done before the inputs are ready. In worst-case mode that includes the result's tensors.
  DispatchCall begin(DispatchArgs const& args, Dispatched& result) {
    DispatchCall call{.args = args};
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

  void prepare(DispatchCall& call, Dispatched& result) {
    attempt(call, [&] {
      DispatchArgs const& args = call.args;
      check_dispatch(args, info_);
      if (call.fresh) describe(args, info_, communicator_.rank(), *call.fresh);
      call.shape = shape_of(args, call.routing->layout, call.routing->top_k);
      if (args.num_worst_tokens > 0) allocate_worst(call, result);
    });
  }

  void allocate_worst(DispatchCall& call, Dispatched& result) {
    engine_.check_usable();
    std::size_t const bytes = receive_block(call.shape).bytes;
    call.block = connected_.heap->allocate(bytes);
    if (!call.block) throw_no_room(*connected_.heap, bytes, "num_worst_tokens rows");
    divide_block(*connected_.heap, call);
    fill_tensors(call, Device::cpu, result);
  }

  // Runs on the stream: reads the ids, agrees with the peers, moves the rows.
  void run(DispatchCall& call, Dispatched& result) {
    TraceScope const span("dispatch", communicator_.rank());
    bool const worst = call.args.num_worst_tokens > 0;
    if (!worst) prepare(call, result);
    attempt(call, [&] {
      TraceScope const layout("dispatch/layout", communicator_.rank());
      if (call.fresh) route(call.args, info_, communicator_.job()->topology(), *call.fresh);
    });
    engine_.dispatch(call);
    if (call.args.received_per_expert.given()) add_rows(result.handle, call.args.received_per_expert);
    if (worst) return;
    divide_block(*connected_.heap, call);
    fill_tensors(call, Device::cpu, result);
    result.tokens_per_expert = result.handle.tokens_per_expert();
  }

  void run(CombineArgs const& args, Combined& result) {
    TraceScope const span("combine", communicator_.rank());
    CombineCall call{.args = args};
    call.workers = workers(args.num_workers);
    attempt(call, [&] {
      check_combine(args, info_);
      engine_.check_usable();
      prepare_outputs(call, *connected_.heap, info_, result);
    });
    engine_.combine(call);
  }

  [[nodiscard]] int workers(int of_call) const { return of_call > 0 ? of_call : setup_.plan.num_workers; }

  Communicator communicator_;
  BufferSetup setup_;
  ConnectedHeap connected_;
  BufferInfo info_;
  cpu::Mover mover_;
  HostedCalls engine_;
  Stream stream_{"sy-comm"};  // comes last, so that it is drained before anything that its tasks use goes
};

}  // namespace

std::shared_ptr<ThroughputEngine> make_cpu_throughput(Communicator const& communicator,
                                                      BufferOptions const& options) {
  return std::make_shared<CpuBuffer>(communicator, options);
}

}  // namespace switchyard::detail
