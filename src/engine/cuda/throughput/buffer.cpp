// The buffer of the CUDA engine.
#include "engine/cuda/throughput/over_nodes/buffer.hpp"

#include <algorithm>
#include <limits>
#include <mutex>
#include <utility>

#include "base/check.hpp"
#include "call/heap_tensors.hpp"
#include "call/reset.hpp"
#include "call/setup.hpp"
#include "call/throughput.hpp"
#include "call/throughput_engine.hpp"
#include "call/views.hpp"
#include "engine/cuda/host/gpu_checks.hpp"
#include "engine/cuda/throughput/buffer_parts.hpp"
#include "engine/cuda/throughput/engine.hpp"
#include "engine/cuda/throughput/results.hpp"
#include "engine/cuda/throughput/rounds.hpp"
#include "job/job.hpp"
#include "memory/device/device_pool.hpp"
#include "memory/round_room.hpp"
#include "memory/stream_uses.hpp"
#include "node/agreement.hpp"
#include "node/device_heap.hpp"
#include "node/host_heap.hpp"
#include "plan/sm_plan.hpp"

namespace switchyard::detail {

namespace {

class CudaBuffer final : public ThroughputEngine, private RoundMaker {
 public:
  CudaBuffer(Communicator communicator, BufferOptions const& options)
      : communicator_(std::move(communicator)),
        setup_(agree_on_setup(job(), options)),
        device_(choose_device(job(), options.device)),
        host_(connect_host_heap(job(), *job().node(), options, setup_.plan)),
        connected_(connect_device_heap(job(), job().node(),
                                       {.device = device_,
                                        .sizes = cuda::control_sizes_of(options, job().size()),
                                        .heap_bytes = cuda::first_heap_bytes(setup_.plan, device_, job().size()),
                                        .grows = !setup_.plan.heap_given,
                                        .timeout = setup_.wait.timeout})),
        info_{options, communicator_.size(), host_.buffer_id, Device::cuda, communicator_.rank()},
        problem_(cuda::sm_problem_of(options, job().size(), connected_.ranks_per_gpu, device_)),
        engine_({.device_heap = connected_.heap,
                 .host_heap = host_.heap,
                 .node = communicator_.job()->node(),
                 .device = device_,
                 .ranks_per_gpu = connected_.ranks_per_gpu,
                 .control = cuda::control_sizes_of(options, job().size()),
                 .wait = setup_.wait},
                problem_) {
    info_.options.device = device_;
    sms_ = {.most = std::max(1, problem_.sms / std::max(1, problem_.ranks_per_gpu)),
            .ranks_per_gpu = connected_.ranks_per_gpu};
    agree(job(), refusal_of([&] { check_sms(options.num_sms, sms_); }));
    num_sms_ = options.num_sms > 0 ? options.num_sms : default_sms(problem_);
    job().barrier();  // all engines stand: their kernels may wait for one another
  }

  Layout get_layout(ConstTensorView topk_idx, std::uintptr_t cuda_stream) override {
    std::lock_guard const lock(calling_);
    Layout result = launch(topk_idx, cuda_stream);
    engine_.make_caller_wait(stream_of(cuda_stream));
    return result;
  }

  Pending<Layout> get_layout_async(ConstTensorView topk_idx, std::uintptr_t cuda_stream) override {
    std::lock_guard const lock(calling_);
    auto result = std::make_shared<Layout>(launch(topk_idx, cuda_stream));
    return {Event(engine_.record(weak_from_this())), result};
  }

  Dispatched dispatch(DispatchArgs const& args) override {
    std::lock_guard const lock(calling_);
    Dispatched result = launch(args);
    engine_.make_caller_wait(stream_of(args.cuda_stream));
    return result;
  }

  Pending<Dispatched> dispatch_async(DispatchArgs const& args) override {
    std::lock_guard const lock(calling_);
    auto result = std::make_shared<Dispatched>(launch(args));
    return {Event(engine_.record(weak_from_this())), result};
  }

  Combined combine(CombineArgs const& args) override {
    std::lock_guard const lock(calling_);
    Combined result = launch(args);
    engine_.make_caller_wait(stream_of(args.cuda_stream));
    return result;
  }

  Pending<Combined> combine_async(CombineArgs const& args) override {
    std::lock_guard const lock(calling_);
    auto result = std::make_shared<Combined>(launch(args));
    return {Event(engine_.record(weak_from_this())), result};
  }

  Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape) override {
    engine_.check_usable();
    return beside_calls([&] { return allocate_tensor(*connected_.heap, dtype, shape, Device::cuda); });
  }

  bool add_received(Handle const& handle, TensorView const& to, std::uintptr_t cuda_stream) override {
    CurrentDevice const current(device_);
    check_received(handle, to, info_);
    check_memory(device_, {{"received_per_expert", to}});
    TensorView const counts = handle.recv_counts().view();
    if (!counts.given()) return false;
    check_cuda(cuda::launch_add_received({.counts = static_cast<std::int32_t const*>(counts.data),
                                          .pitch = counts.stride(0),
                                          .num_ranks = info_.num_ranks,
                                          .local_experts = static_cast<int>(to.size(0)),
                                          .to = to.data,
                                          .stride = to.stride(0),
                                          .wide = to.dtype == DType::i64},
                                         stream_of(cuda_stream)),
               "launching the kernel that adds counts");
    note_stream_use(counts.data, cuda_stream);
    return true;
  }

  Tensor by_column(ConstTensorView const& scales, std::uintptr_t cuda_stream) override {
    CurrentDevice const current(device_);
    check_by_column(scales, info_);
    check_memory(device_, {{"scales", scales}});
    engine_.check_usable();
    return cuda::copy_by_column(*connected_.heap, scales, cuda_stream);
  }

  Tensor copy(ConstTensorView const& source, std::uintptr_t cuda_stream) override {
    std::unique_lock const lock(calling_, std::try_to_lock);
    if (!lock) return {};  // a call that is under way decides what the stream is behind
    CurrentDevice const current(device_);
    check_source(source, info_);
    engine_.check_usable();
    if (!engine_.may_write(stream_of(cuda_stream))) return {};
    Tensor copy = room_for_copy(*connected_.heap, source, Device::cuda);
    if (!copy.given() || source.numel() == 0) return copy;
    check_cuda(cudaMemcpyAsync(copy.view().data, source.data, bytes_without_gaps(source), cudaMemcpyDeviceToDevice,
                               stream_of(cuda_stream)),
               "copying a tensor");
    note_stream_use(copy.view().data, cuda_stream);  // which writes it yet when it is released soon
    return copy;
  }

  void synchronize() override { engine_.record(weak_from_this())->wait(); }
  void reset() override {
    std::lock_guard const lock(calling_);
    reset_together(job(), engine_);
  }
  std::size_t trim() override {
    std::unique_lock const lock(calling_, std::try_to_lock);
    if (!lock) return 0;  // what peers read in the call that is under way may be free already
    engine_.reclaim_between_calls();
    return heap().give_back();
  }
  void drain() noexcept override { cudaStreamSynchronize(engine_.stream()); }

  Stream& stream() override {
    throw Unsupported("stream: the CUDA engine has a CUDA stream; see Buffer::cuda_stream()");
  }
  [[nodiscard]] std::uintptr_t cuda_stream() const noexcept override {
    return reinterpret_cast<std::uintptr_t>(engine_.stream());
  }
  [[nodiscard]] EngineKind engine() const noexcept override { return EngineKind::cuda; }
  [[nodiscard]] Communicator const& communicator() const noexcept override { return communicator_; }
  [[nodiscard]] BufferOptions const& options() const noexcept override { return info_.options; }
  [[nodiscard]] SymmetricHeap& heap() const noexcept override { return *connected_.heap; }
  void gate() override { engine_.gate(); }
  [[nodiscard]] std::vector<PhaseTime> phases() const override { return engine_.phases(); }

 private:
  Job& job() { return *communicator_.job(); }

  // Blocks that were released may still be in use by earlier calls: then waits for these, and tries again.
  template <typename Make>
  auto with_room(Make const& make) -> decltype(make()) {
    try {
      return make();
    } catch (OutOfMemory const&) {
      engine_.reclaim_between_calls();
    }
    return make();
  }

  // Takes memory beside a call of another thread, which may take long.
  template <typename Make>
  auto beside_calls(Make const& make) -> decltype(make()) {
    try {
      return make();
    } catch (OutOfMemory const&) {
      std::lock_guard const lock(calling_);
      return with_room(make);
    }
  }

  // The kernel writes it, whoever releases it before.
  void keep(Tensor const& tensor) {
    if (tensor.given()) engine_.keep_until_done({.offset = 0, .data = nullptr, .owner = tensor.owner()});
  }

  // Kernels count rows in 32 bits.
  void check_padding(DispatchArgs const& args) const {
    if (args.layout != OutputLayout::expanded || args.handle.given()) return;
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
    // A row for each slot: a token may name one expert several times.
    std::int64_t const rows = info_.num_ranks * info_.options.max_tokens * info_.options.top_k;
    std::int64_t const experts = ExpertSplit(info_.options.num_experts, info_.num_ranks).max_count();
    require(rows + experts * (args.expert_alignment - 1) <= most,
            "expert_alignment: expected at most {} with {} experts a rank, seen {}",
            (most - rows) / std::max<std::int64_t>(experts, 1) + 1, experts, args.expert_alignment);
  }

  Layout launch(ConstTensorView topk_idx, std::uintptr_t cuda_stream) {
    engine_.check_usable();
    check_topk_idx(topk_idx, info_);
    check_memory(device_, {{"topk_idx", topk_idx}});
    auto const tensor = [this](DType dtype, std::initializer_list<std::int64_t> shape) {
      return allocate_tensor(*connected_.heap, dtype, shape, Device::cuda);
    };
    Layout layout = with_room([&] {
      return Layout{.num_tokens_per_rank = tensor(DType::i32, {info_.num_ranks}),
                    .num_tokens_per_expert = tensor(DType::i32, {info_.options.num_experts}),
                    .is_token_in_rank = tensor(DType::u8, {topk_idx.size(0), info_.num_ranks})};
    });
    engine_.get_layout({.topk_idx = topk_idx, .workers = num_sms_}, layout, stream_of(cuda_stream));
    keep(layout.num_tokens_per_rank);
    keep(layout.num_tokens_per_expert);
    keep(layout.is_token_in_rank);
    return layout;
  }

  Dispatched launch(DispatchArgs const& args) {
    CurrentDevice const current(device_);
    engine_.start_after(stream_of(args.cuda_stream), args.num_worst_tokens > 0);
    if (ran_in_rounds(args.handle)) {
      args.after.wait_on(cuda_stream());
      return dispatch_in_same_rounds(tools(), args, refusal_of([&] { check(args); }));
    }
    auto fresh = args.handle.given() ? nullptr : std::make_shared<Routing>();
    try {
      return launch(args, fresh, {});
    } catch (OutOfMemory const&) {
      // All ranks throw alike, and in the same phase: all know the counts, or none does.
      if (!fresh || !fresh->counted || args.num_worst_tokens > 0) throw;
    }
    return dispatch_in_rounds(tools(), args, std::move(fresh));
  }

  Dispatched launch(DispatchArgs const& args, std::shared_ptr<Routing> const& fresh, RoundTerms const& terms) {
    Dispatched result;
    DispatchCall call{.args = args,
                      .refusal = terms.refusal,
                      .fresh = fresh,
                      .routing = fresh ? fresh : args.handle.routing(),
                      .workers = args.num_sms > 0 ? args.num_sms : num_sms_,
                      .outside = [this](std::size_t bytes) { return outside_of_heap(bytes); },
                      .first_token = terms.first_token,
                      .range = terms.range,
                      .room = terms.room,
                      .waits = info_.options.errors_at_once || terms.is_round};
    attempt(call, [&] {
      check(args);
      if (fresh) describe(args, info_, communicator_.rank(), *fresh);
      call.shape = shape_of(args, call.routing->layout, call.routing->top_k);
      if (args.num_worst_tokens > 0) allocate_worst(call);
    });
    if (call.refusal) call.workers = 1;
    args.after.wait_on(cuda_stream());
    engine_.dispatch(call, stream_of(args.cuda_stream));
    if (!terms.room) divide_block(*connected_.heap, call);
    if (call.description) engine_.keep_until_done(*call.description);
    fill_tensors(call, Device::cuda, result);
    result.ids = call.ids;
    result.handle = Handle(call.routing);
    if (args.num_worst_tokens == 0) result.tokens_per_expert = result.handle.tokens_per_expert();
    return result;
  }

  void check(DispatchArgs const& args) const {
    cuda::check_on_gpu(args, info_, sms_);
    check_padding(args);
  }

  void check(CombineArgs const& args) const { cuda::check_on_gpu(args, info_, sms_); }

  void allocate_worst(DispatchCall& call) {
    std::size_t const bytes = receive_block(call.shape).bytes;
    call.block = engine_.take(bytes);
    if (!call.block) throw_no_room(*connected_.heap, bytes, "num_worst_tokens rows");
  }

  Combined launch(CombineArgs const& args) {
    CurrentDevice const current(device_);
    bool const given = args.handle.given();
    engine_.start_after(stream_of(args.cuda_stream), given && args.handle.routing()->worst);
    if (!ran_in_rounds(args.handle)) return launch(args, {});
    args.after.wait_on(cuda_stream());
    return combine_in_rounds(tools(), args, refusal_of([&] { check(args); }));
  }

  Combined launch(CombineArgs const& args, RoundTerms const& terms) {
    Combined result;
    CombineCall call{.args = args, .refusal = terms.refusal, .out_weights = terms.out_weights};
    call.workers = args.num_sms > 0 ? args.num_sms : num_sms_;
    call.waits = info_.options.errors_at_once || terms.is_round;
    attempt(call, [&] {
      check(args);
      with_room([&] { prepare_outputs(call, *connected_.heap, info_, result); });
    });
    if (call.refusal) call.workers = 1;
    args.after.wait_on(cuda_stream());
    engine_.combine(call, stream_of(args.cuda_stream));
    keep(result.x);
    keep(result.topk_weights);
    return result;
  }

  [[nodiscard]] static bool ran_in_rounds(Handle const& handle) {
    return handle.given() && !handle.routing()->rounds.empty();
  }

  RoundTools tools() {
    return {.maker = *this, .engine = engine_, .heap = *connected_.heap, .options = info_.options};
  }

  Dispatched dispatch_round(DispatchArgs const& args, RoundTerms const& terms) override {
    return launch(args, args.handle.given() ? nullptr : std::make_shared<Routing>(), terms);
  }

  Combined combine_round(CombineArgs const& args, RoundTerms const& terms) override { return launch(args, terms); }

  std::shared_ptr<std::byte> outside_of_heap(std::size_t bytes) override {
    if (!pool_) pool_ = std::make_shared<DevicePool>(device_);
    return pool_->take(bytes, engine_.stream(), shared_from_this());
  }

  RoundRoom take_room(std::size_t useful) override {
    engine_.reclaim_between_calls();
    return rooms_.take(*connected_.heap, useful);
  }

  std::mutex calling_;  // trim() may come from another thread than calls
  Communicator communicator_;
  BufferSetup setup_;
  int device_;
  ConnectedHeap host_;
  ConnectedDeviceHeap connected_;
  BufferInfo info_;
  std::shared_ptr<DevicePool> pool_;  // made when the heap has too little
  RoundRooms rooms_;
  SmProblem problem_;
  cuda::Engine engine_;
  SmShare sms_;
  int num_sms_ = 0;
};

}  // namespace

std::shared_ptr<ThroughputEngine> make_cuda_throughput(Communicator const& communicator,
                                                       BufferOptions const& options) {
  if (communicator.job()->topology().num_nodes() > 1)
    return cuda::make_throughput_over_nodes(communicator, options);
  return std::make_shared<CudaBuffer>(communicator, options);
}

}  // namespace switchyard::detail
