#include "engine/cuda/throughput/over_nodes/buffer.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "base/trace.hpp"
#include "call/heap_tensors.hpp"
#include "call/hosted/calls.hpp"
#include "call/hosted/host_layout.hpp"
#include "call/hosted/route.hpp"
#include "call/reset.hpp"
#include "call/setup.hpp"
#include "engine/cuda/host/engine_resources.hpp"
#include "engine/cuda/host/pinned_memory.hpp"
#include "engine/cuda/throughput/buffer_parts.hpp"
#include "engine/cuda/throughput/launch.hpp"
#include "engine/cuda/throughput/over_nodes/host_copies.hpp"
#include "engine/cuda/throughput/over_nodes/lists.hpp"
#include "engine/cuda/throughput/over_nodes/mover.hpp"
#include "engine/cuda/throughput/results.hpp"
#include "job/job.hpp"
#include "layout/fp8.hpp"
#include "memory/stream_uses.hpp"
#include "node/agreement.hpp"
#include "node/device_heap.hpp"

namespace switchyard::cuda {

namespace {

using detail::Routing;

// What the caller's streams do before a call.
using Inputs = std::deque<DeviceEvent>;

// Whether a call has made its result's tensors. The stream's thread says it once, the caller waits for it.
class Made {
 public:
  void open(bool made) {
    if (!std::exchange(open_, true)) promise_.set_value(made);
  }
  [[nodiscard]] bool wait() { return promise_.get_future().get(); }

 private:
  bool open_ = false;
  std::promise<bool> promise_;
};

class OpenAtEnd {
 public:
  explicit OpenAtEnd(Made& made) : made_(made) {}
  ~OpenAtEnd() { made_.open(false); }
  OpenAtEnd(OpenAtEnd const&) = delete;
  OpenAtEnd& operator=(OpenAtEnd const&) = delete;

 private:
  Made& made_;
};

// What a call has queued is over when this goes, however the call ends.
class AtRest {
 public:
  explicit AtRest(Mover const& mover) : mover_(mover) {}
  ~AtRest() { cudaStreamSynchronize(mover_.stream()); }
  AtRest(AtRest const&) = delete;
  AtRest& operator=(AtRest const&) = delete;

 private:
  Mover const& mover_;
};

// Rows lie in memory of the GPU. Hosts make the rounds of a call, as on the CPU engine, and tell kernels what to
// copy and to add. So a call ends when its host has seen its end: results are complete when it returns.
class NodesBuffer final : public detail::ThroughputEngine {
 public:
  NodesBuffer(Communicator communicator, BufferOptions const& options)
      : communicator_(std::move(communicator)),
        setup_(agree_on_setup(job(), options, Device::cuda)),
        device_(choose_device(job(), options.device)),
        host_(connect_host_heap(job(), *job().node(), options, setup_.plan)),
        connected_(
            connect_device_heap(job(), job().node(),
                                {.device = device_,
                                 .sizes = {.num_ranks = job().node()->size()},  // kernels do not signal one another
                                 .heap_bytes = first_heap_bytes(setup_.plan, device_, job().node()->size()),
                                 .grows = !setup_.plan.heap_given,
                                 .timeout = setup_.wait.timeout})),
        info_{options, communicator_.size(), host_.buffer_id, Device::cuda, communicator_.rank()},
        mover_(make_mover()),
        calls_({host_.heap, connected_.heap}, communicator_.job(), *mover_,
               {.num_experts = options.num_experts,
                .max_tokens = options.max_tokens,
                .wait = setup_.wait,
                .rings = setup_.rings,
                .f32_partials = options.f32_partials,
                // Kernels read and write chunks where they lie.
                .pin = [this](std::span<std::byte> memory) { return pin(device_, memory); }}) {
    info_.options.device = device_;
    SmProblem const problem = sm_problem_of(options, job().node()->size(), connected_.ranks_per_gpu, device_);
    sms_ = {.most = std::max(1, problem.sms / std::max(1, problem.ranks_per_gpu)),
            .ranks_per_gpu = connected_.ranks_per_gpu};
    agree(job(), refusal_of([&] { check_sms(options.num_sms, sms_); }));
    num_sms_ = options.num_sms > 0 ? options.num_sms : default_sms(problem);
  }

  Layout get_layout(ConstTensorView topk_idx, std::uintptr_t cuda_stream) override {
    CurrentDevice const current(device_);
    HarmlessToCaptures const harmless;
    calls_.check_usable();
    check_topk_idx(topk_idx, info_);
    check_memory(device_, {{"topk_idx", topk_idx}});
    auto const inputs = inputs_of(cuda_stream);
    for (DeviceEvent const& each : *inputs) each.wait();
    HostCopies copies;
    DispatchArgs ids{.topk_idx = topk_idx};
    copies.take(ids, stream_of(cuda_stream));
    Layout const here = host_layout(ids.topk_idx, info_.options.num_experts, job().topology());
    Layout layout{.num_tokens_per_rank = on_gpu(here.num_tokens_per_rank, cuda_stream),
                  .num_tokens_per_expert = on_gpu(here.num_tokens_per_expert, cuda_stream),
                  .is_token_in_rank = on_gpu(here.is_token_in_rank, cuda_stream),
                  .num_tokens_per_node = on_gpu(here.num_tokens_per_node, cuda_stream)};
    calls_.check_usable();  // see allocate()
    return layout;
  }

  Pending<Layout> get_layout_async(ConstTensorView topk_idx, std::uintptr_t cuda_stream) override {
    return {Event(), std::make_shared<Layout>(get_layout(topk_idx, cuda_stream))};
  }

  Dispatched dispatch(DispatchArgs const& args) override {
    Dispatched result;
    auto const inputs = inputs_of(args.cuda_stream);
    DispatchCall call = begin(args, result);
    stream_.wait(args.after);
    stream_.run([&] { run(call, *inputs, result, [] {}); });
    return result;
  }

  // Comes back when the result has its tensors; their rows are there when the event is complete.
  Pending<Dispatched> dispatch_async(DispatchArgs const& args) override {
    auto result = std::make_shared<Dispatched>();
    auto inputs = inputs_of(args.cuda_stream);
    auto call = std::make_shared<DispatchCall>(begin(args, *result));
    auto const made = std::make_shared<Made>();
    stream_.wait(args.after);
    Event const event = stream_.submit([state = self(), call, inputs, result, made] {
      OpenAtEnd const open(*made);
      state->run(*call, *inputs, *result, [&made] { made->open(true); });
    });
    if (!made->wait()) event.wait();  // throws why there are none
    return {event, result};
  }

  Combined combine(CombineArgs const& args) override {
    Combined result;
    auto const inputs = inputs_of(args.cuda_stream);
    stream_.wait(args.after);
    stream_.run([&] {
      CombineCall call{.args = args};
      prepare(call, result);
      run(call, *inputs);
    });
    return result;
  }

  // Comes back when the calls before are over, whose handle this one may use, and the result has its tensors.
  Pending<Combined> combine_async(CombineArgs const& args) override {
    auto result = std::make_shared<Combined>();
    auto inputs = inputs_of(args.cuda_stream);
    auto call = std::make_shared<CombineCall>(CombineCall{.args = args});
    stream_.wait(args.after);
    stream_.run([&] { prepare(*call, *result); });
    bool const refused = call->refusal.has_value();
    // The result owns what the call writes, whatever the caller does with its own.
    Event const event = stream_.submit([state = self(), call, inputs, result] { state->run(*call, *inputs); });
    if (refused) event.wait();
    return {event, result};
  }

  Tensor allocate(DType dtype, std::initializer_list<std::int64_t> shape) override {
    calls_.check_usable();
    Tensor tensor = allocate_tensor(*connected_.heap, dtype, shape, Device::cuda);
    // A call that has failed meanwhile has released a block into which late peers may write until the reset.
    calls_.check_usable();
    return tensor;
  }

  void synchronize() override { stream_.synchronize(); }
  // It runs on the stream, behind all queued work, which is over then.
  void reset() override {
    stream_.run([this] { reset_together(job(), calls_); });
  }
  void drain() noexcept override { stream_.synchronize(); }
  // Peers write into what this rank unmaps while a call is under way, and after one that has failed until the
  // reset.
  std::size_t trim() override {
    std::unique_lock const lock(calling_, std::try_to_lock);
    if (!lock || refusal_of([this] { calls_.check_usable(); })) return 0;
    return heap().give_back();
  }

  // The numbers are in host memory, and the caller can add them where it likes.
  bool add_received(Handle const& handle, TensorView const& to, std::uintptr_t /*cuda_stream*/) override {
    check_received(handle, to, info_);
    return false;
  }

  Tensor by_column(ConstTensorView const& scales, std::uintptr_t cuda_stream) override {
    CurrentDevice const current(device_);
    check_by_column(scales, info_);
    check_memory(device_, {{"scales", scales}});
    calls_.check_usable();
    Tensor copy = copy_by_column(*connected_.heap, scales, cuda_stream);
    calls_.check_usable();  // see allocate()
    return copy;
  }

  // The caller can copy elsewhere.
  Tensor copy(ConstTensorView const& source, std::uintptr_t /*cuda_stream*/) override {
    check_source(source, info_);
    return {};
  }

  void count_calls(bool on) override { calls_.counter().set_on(on); }
  [[nodiscard]] CallCounts call_counts() const override { return calls_.counter().sums(); }
  [[nodiscard]] WireCount wire_count() const override { return calls_.wire_count(); }

  Stream& stream() override {
    throw Unsupported("stream: the CUDA engine has a CUDA stream; see Buffer::cuda_stream()");
  }
  [[nodiscard]] std::uintptr_t cuda_stream() const noexcept override {
    return reinterpret_cast<std::uintptr_t>(mover_->stream());
  }
  [[nodiscard]] EngineKind engine() const noexcept override { return EngineKind::cuda; }
  [[nodiscard]] Communicator const& communicator() const noexcept override { return communicator_; }
  [[nodiscard]] BufferOptions const& options() const noexcept override { return info_.options; }
  [[nodiscard]] SymmetricHeap& heap() const noexcept override { return *connected_.heap; }

 private:
  Job& job() { return *communicator_.job(); }
  // Collective.
  std::unique_ptr<Mover> make_mover() {
    std::unique_ptr<Mover> mover;
    agree(job(), refusal_of([&] {
            CurrentDevice const current(device_);
            mover = std::make_unique<Mover>(connected_.heap, device_, communicator_.rank());
            load_kernels({{"lists", load_lists}, {"cast", load_cast}, {"results", load_results}});
          }));
    return mover;
  }
  std::shared_ptr<NodesBuffer> self() { return std::static_pointer_cast<NodesBuffer>(shared_from_this()); }

  // What is queued now on the caller's stream comes before the call, and what was queued on the one of the call
  // before: it may read blocks that are free.
  std::shared_ptr<Inputs> inputs_of(std::uintptr_t cuda_stream) {
    CurrentDevice const current(device_);
    require(
        !is_capturing(stream_of(cuda_stream)),
        "cuda_stream: expected one that is not being captured into a graph, seen one that is: in a job of several "
        "nodes hosts take part in every call");
    auto inputs = std::make_shared<Inputs>();
    inputs->emplace_back(device_).record(stream_of(cuda_stream));
    if (auto const earlier = connected_.heap->note_caller(cuda_stream))
      inputs->emplace_back(device_).record(stream_of(*earlier));
    return inputs;
  }

  Tensor on_gpu(Tensor const& tensor, std::uintptr_t cuda_stream) {
    ConstTensorView const from = tensor.view();
    Tensor copy = from.ndim == 1
                      ? allocate_tensor(*connected_.heap, from.dtype, {from.size(0)}, Device::cuda)
                      : allocate_tensor(*connected_.heap, from.dtype, {from.size(0), from.size(1)}, Device::cuda);
    std::size_t const bytes = static_cast<std::size_t>(from.numel()) * size_of(from.dtype);
    if (bytes > 0) {
      check_cuda(
          cudaMemcpyAsync(copy.view().data, from.data, bytes, cudaMemcpyHostToDevice, stream_of(cuda_stream)),
          "writing a layout");
      check_cuda(cudaStreamSynchronize(stream_of(cuda_stream)), "writing a layout");
    }
    return copy;
  }

  // Does what can be done before the inputs are ready. In worst-case mode that includes the result's tensors.
  DispatchCall begin(DispatchArgs const& args, Dispatched& result) {
    DispatchCall call{.args = args};
    call.workers = args.num_sms > 0 ? args.num_sms : num_sms_;
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
      check_on_gpu(args, info_, sms_);
      if (call.fresh) describe(args, info_, communicator_.rank(), *call.fresh);
      call.shape = shape_of(args, call.routing->layout, call.routing->top_k);
      if (args.num_worst_tokens > 0) allocate_worst(call, result);
    });
  }

  void allocate_worst(DispatchCall& call, Dispatched& result) {
    calls_.check_usable();
    std::size_t const bytes = receive_block(call.shape).bytes;
    call.block = mover_->take(bytes);
    if (!call.block) throw_no_room(*connected_.heap, bytes, "num_worst_tokens rows");
    divide_block(*connected_.heap, call);
    fill_tensors(call, Device::cuda, result);
  }

  // Runs on the stream: reads the ids, agrees with the peers, moves the rows. `made` is called when the result has
  // its tensors, before rows move.
  void run(DispatchCall& call, Inputs const& inputs, Dispatched& result, std::function<void()> const& made) {
    TraceScope const span("dispatch", communicator_.rank());
    std::lock_guard const lock(calling_);
    CurrentDevice const current(device_);
    HarmlessToCaptures const harmless;
    bool const worst = call.args.num_worst_tokens > 0;
    TensorView const received = call.args.received_per_expert;
    if (!worst) prepare(call, result);
    std::optional<SymmetricHeap::Block> cast_rows;
    AtRest const at_rest(*mover_);
    attempt(call, [&] {
      for (DeviceEvent const& each : inputs) each.wait();
      copies_.take(call.args, mover_->stream());
      if (call.fresh) route(call.args, info_, job().topology(), *call.fresh);
      cast_rows = choose_rows(call);
    });
    call.when_placed = [&] {
      if (!worst) make_tensors(call, result);
      made();
    };
    calls_.dispatch(call);
    if (received.given()) add_numbers(result.handle, received);
  }

  void make_tensors(DispatchCall& call, Dispatched& result) {
    divide_block(*connected_.heap, call);
    fill_tensors(call, Device::cuda, result);
    result.tokens_per_expert = result.handle.tokens_per_expert();
  }

  // What travels: the caller's rows, or what a cast makes of them, in a block that is kept until they have left.
  std::optional<SymmetricHeap::Block> choose_rows(DispatchCall const& call) {
    ConstTensorView const& x = call.args.x;
    mover_->travel({.x = x, .scales = call.args.scales});
    if (!call.args.cast_to_fp8) return std::nullopt;
    std::int64_t const groups = scale_groups(x.size(1));
    std::size_t const values = align_up(static_cast<std::size_t>(x.numel()), part_alignment);
    std::size_t const bytes = values + static_cast<std::size_t>(x.size(0) * groups) * sizeof(float);
    auto block = mover_->take(bytes);
    if (!block) throw_no_room(*connected_.heap, bytes, "the cast of x");
    auto* const scales = reinterpret_cast<float*>(block->data + values);
    check_cuda(launch_cast({.from = static_cast<std::byte const*>(x.data),
                            .row_stride = x.stride(0),
                            .dtype = x.dtype,
                            .tokens = x.size(0),
                            .hidden = x.size(1),
                            .values = reinterpret_cast<std::uint8_t*>(block->data),
                            .scales = scales},
                           4 * call.workers, mover_->stream()),
               "launching the cast kernel");
    mover_->travel({.x = {block->data, DType::f8e4m3, {x.size(0), x.size(1)}},
                    .scales = {scales, DType::f32, {x.size(0), groups}}});
    return block;
  }

  // Adds what each local expert has received.
  void add_numbers(Handle const& handle, TensorView const& to) {
    std::vector<std::int64_t> const& rows = handle.real_tokens_per_expert();
    if (!counts_) counts_ = std::make_unique<PinnedMemory>((1 + rows.size()) * sizeof(std::int32_t));
    auto* const numbers = reinterpret_cast<std::int32_t*>(counts_->bytes().data());
    numbers[0] = 0;
    std::ranges::transform(rows, numbers + 1, [](std::int64_t each) { return static_cast<std::int32_t>(each); });
    check_cuda(launch_add_received({.counts = numbers,
                                    .pitch = static_cast<std::int64_t>(1 + rows.size()),
                                    .num_ranks = 1,
                                    .local_experts = static_cast<int>(rows.size()),
                                    .to = to.data,
                                    .stride = to.stride(0),
                                    .wide = to.dtype == DType::i64},
                                   mover_->stream()),
               "launching the kernel that adds counts");
    check_cuda(cudaStreamSynchronize(mover_->stream()), "adding counts");
  }

  void prepare(CombineCall& call, Combined& result) {
    CurrentDevice const current(device_);
    HarmlessToCaptures const harmless;
    call.workers = call.args.num_sms > 0 ? call.args.num_sms : num_sms_;
    attempt(call, [&] {
      check_on_gpu(call.args, info_, sms_);
      calls_.check_usable();
      prepare_outputs(call, *connected_.heap, info_, result);
      mover_->check_size(call, job().topology().num_nodes());
      // While the caller waits: what it queues later may still read blocks that are free by then.
      calls_.take_staging(call);
    });
  }

  void run(CombineCall& call, Inputs const& inputs) {
    TraceScope const span("combine", communicator_.rank());
    std::lock_guard const lock(calling_);
    CurrentDevice const current(device_);
    HarmlessToCaptures const harmless;
    AtRest const at_rest(*mover_);
    attempt(call, [&] {
      for (DeviceEvent const& each : inputs) each.wait();
    });
    calls_.combine(call);
  }

  std::mutex calling_;  // trim() may come from another thread than calls
  Communicator communicator_;
  BufferSetup setup_;
  int device_;
  ConnectedHeap host_;
  ConnectedDeviceHeap connected_;
  BufferInfo info_;
  std::unique_ptr<Mover> mover_;
  HostedCalls calls_;
  HostCopies copies_;
  std::unique_ptr<PinnedMemory> counts_;
  SmShare sms_;
  int num_sms_ = 0;
  Stream stream_{"sy-comm"};  // comes last, so that it is drained before anything that its tasks use goes
};

}  // namespace

std::shared_ptr<detail::ThroughputEngine> make_throughput_over_nodes(Communicator const& communicator,
                                                                     BufferOptions const& options) {
  return std::make_shared<NodesBuffer>(communicator, options);
}

}  // namespace switchyard::cuda
