// The low-latency buffer of the CUDA engine: who uses each frame, and the arguments of its kernels.
#include <algorithm>
#include <array>
#include <utility>

#include "base/check.hpp"
#include "call/bays.hpp"
#include "call/low_latency.hpp"
#include "call/reset.hpp"
#include "call/setup.hpp"
#include "engine/cuda/host/gpu_checks.hpp"
#include "engine/cuda/host/rows.hpp"
#include "engine/cuda/host/width.hpp"
#include "engine/cuda/low_latency/call_checks.hpp"
#include "engine/cuda/low_latency/engine.hpp"
#include "engine/cuda/low_latency/launch.hpp"
#include "engine/cuda/low_latency/read_bays.hpp"
#include "job/job.hpp"
#include "layout/logfmt.hpp"
#include "node/agreement.hpp"
#include "node/device_heap.hpp"

namespace switchyard::detail {

namespace {

DeviceSizes control_sizes(SlotSizes const& slots) {
  return {.num_ranks = slots.num_ranks,
          .num_experts = slots.num_experts,
          .max_local_experts = slots.max_local_experts,
          .max_tokens = 0,
          .top_k = slots.top_k};
}

cuda::ByteRows byte_rows_of(ConstTensorView const& view) {
  if (!view.given()) return {};
  std::size_t const bytes = row_bytes_of(view);
  std::int64_t const stride = view.size(0) > 1 ? row_stride_of(view) : static_cast<std::int64_t>(bytes);
  return {.from = static_cast<std::byte const*>(view.data),
          .stride = stride,
          .bytes = static_cast<std::uint32_t>(bytes),
          .width = cuda::width_of(view.data, stride, bytes)};
}

SlotSizes cuda_slot_sizes_of(LowLatencyOptions const& options, int num_ranks) {
  SlotSizes sizes = slot_sizes_of(options, num_ranks);
  sizes.blocks_publish = true;
  return sizes;
}

class CudaLowLatency final : public LowLatencyEngine {
 public:
  CudaLowLatency(Communicator communicator, LowLatencyOptions const& options)
      : communicator_(std::move(communicator)),
        setup_(decide(options)),
        device_(choose_device(job(), options.device)),
        sizes_(cuda_slot_sizes_of(options, job().size())),
        host_(connect_host(options)),
        connected_(connect_device_heap(job(), job().node(),
                                       {.device = device_,
                                        .sizes = control_sizes(sizes_),
                                        .heap_bytes = slot_layout(sizes_).bytes,
                                        .grows = true,
                                        .timeout = setup_.wait.timeout,
                                        .atomics = true})),
        info_{.options = options,
              .num_ranks = job().size(),
              .rank = job().rank(),
              .buffer_id = host_.buffer_id,
              .device = Device::cuda},
        bays_(connected_.heap, slot_layout(sizes_), sizes_.frames),
        engine_({.device_heap = connected_.heap,
                 .host_heap = host_.heap,
                 .node = communicator_.job()->node(),
                 .device = device_,
                 .ranks_per_gpu = connected_.ranks_per_gpu,
                 .control = control_sizes(sizes_),
                 .wait = setup_.wait},
                sizes_, options.mask_late_peers),
        readers_(connected_.heap, slot_layout(sizes_), device_) {
    info_.options.device = device_;
    // One SM stays free for the kernels that give frames back while a call runs.
    sms_ = {.most = std::clamp((multiprocessors_of(device_) - 1) / std::max(1, connected_.ranks_per_gpu), 1,
                               max_send_blocks),
            .ranks_per_gpu = connected_.ranks_per_gpu};
    agree(job(), refusal_of([&] { check_gpu(options); }));
    num_sms_ = options.num_sms > 0 ? options.num_sms : sms_.most;
    job().barrier();  // all slots are clear, so kernels may write into them
    for (int rank = 0; rank < info_.num_ranks; ++rank)
      if (job().is_absent(rank)) engine_.leave_out(rank);
  }

  LowLatencyReceived dispatch(LowLatencyDispatchArgs const& args) override { return start(args, true).first; }

  LowLatencyReceived send_dispatch(LowLatencyDispatchArgs const& args, ReceiveHook& receive) override {
    auto [received, kernel] = start(args, false);
    receive = cuda::once(shared_from_this(),
                         [this, kernel = kernel, lease = received.handle.lease()](std::uintptr_t stream) mutable {
                           if (lease->generation != info_.generation) return;  // a reset has made it void
                           kernel.send = false;
                           kernel.receive = true;
                           run(kernel, 1, stream);
                           lease->received = true;
                         });
    return received;
  }

  void combine(LowLatencyCombineArgs const& args) override { start(args, true); }

  void send_combine(LowLatencyCombineArgs const& args, ReceiveHook& receive) override {
    auto kernel = start(args, false);
    args.handle.lease()->combine_received = false;
    int const blocks = blocks_for(args.num_sms, kernel.tokens);
    receive = cuda::once(shared_from_this(),
                         [this, kernel, blocks, lease = args.handle.lease()](std::uintptr_t stream) mutable {
                           if (lease->generation != info_.generation) return;
                           kernel.send = false;
                           kernel.receive = true;
                           run(kernel, blocks, stream);
                           lease->combine_received = true;
                         });
  }

  Tensor outputs(LowLatencyHandle const& handle, DType dtype) override {
    check_low_latency_handle(handle, info_);
    check_outputs_dtype(dtype);
    return outputs_in(place_of(handle.lease()->bay), sizes_, dtype, info_.options.hidden, handle.lease());
  }

  void mask(int rank, bool masked) override {
    check_peer(rank, info_);
    if (!job().is_absent(rank)) engine_.mask(rank, masked);  // else it is masked, and has no slots
  }
  std::vector<bool> masked() override { return engine_.masked(); }

  void reset() override {
    reset_together(job(), engine_);
    ++info_.generation;
    calls_ = 0;
    for (auto& lease : held_) lease.reset();
    agree(job(), refusal_of([this] {
            bays_.forget();
            std::vector<int> of_frames;
            for (int frame = 0; frame < sizes_.frames; ++frame) of_frames.push_back(bays_.of(frame));
            engine_.publish_bays(of_frames);
          }));
  }

  void synchronize() override { engine_.synchronize(); }
  void gate(std::uintptr_t cuda_stream) override { engine_.gate(stream_of(cuda_stream)); }
  void drain() noexcept override {
    static_cast<void>(refusal_of([this] { engine_.synchronize(); }));
  }

  [[nodiscard]] EngineKind engine() const noexcept override { return EngineKind::cuda; }
  [[nodiscard]] Communicator const& communicator() const noexcept override { return communicator_; }
  [[nodiscard]] LowLatencyOptions const& options() const noexcept override { return info_.options; }
  [[nodiscard]] std::size_t bytes() const noexcept override { return engine_.layout().bytes; }
  [[nodiscard]] std::uint64_t buffer_id() const noexcept override { return info_.buffer_id; }

 private:
  Job& job() { return *communicator_.job(); }

  BufferSetup decide(LowLatencyOptions const& options) {
    agree(job(), refusal_of([&] { check_low_latency_options(options, job().size()); }));
    return agree_on_setup(job(), buffer_options_of(options, 0));
  }

  ConnectedHeap connect_host(LowLatencyOptions const& options) {
    auto const names = size_options_of(options);
    return connect_host_heap(job(), *job().node(), SizeOptions{"LowLatencyOptions", names, low_latency_sizes},
                             setup_.plan);
  }

  void check_gpu(LowLatencyOptions const& options) const {
    CurrentDevice const current(device_);
    check_sms(options.num_sms, sms_);
    int const most_experts = cuda::most_slot_experts();  // they are counted in shared memory
    require(options.num_experts <= most_experts,
            "num_experts: expected at most {} in low-latency mode on the CUDA engine, seen {}", most_experts,
            options.num_experts);
    constexpr auto most = static_cast<std::size_t>(max_result_rows);
    require(sizes_.rows() <= most, "max_tokens: expected at most {} slots, seen {}", most, sizes_.rows());
  }

  [[nodiscard]] int blocks_for(int num_sms, std::int64_t tokens) const {
    std::int64_t const most = num_sms > 0 ? num_sms : num_sms_;
    return static_cast<int>(std::clamp<std::int64_t>(tokens, 1, most));
  }

  [[nodiscard]] BayPlace place_of(int bay) const {
    return {.bay = engine_.bay(bay),
            .device = Device::cuda,
            .local_experts = ExpertSplit(sizes_.num_experts, sizes_.num_ranks).count(info_.rank)};
  }

  // Gives the frame another bay, because `held` is in the present one. A graph keeps the bay that it was captured
  // with. Throws InvalidArgument when there is none.
  void leave_behind(Lease const& held) {
    check_may_move({.received = held.received && held.combine_received,
                    .captured = in_graphs_[static_cast<std::size_t>(held.frame)],
                    .frames = sizes_.frames});
    if (held.bay == bays_.of(held.frame)) bays_.move(held.frame);
  }

  // Leases the next frame for this call.
  std::shared_ptr<Lease> lease_frame(LowLatencyDispatchArgs const& args, bool captured) {
    auto const frame = static_cast<int>(calls_ % static_cast<std::uint64_t>(sizes_.frames));
    auto& held = held_[static_cast<std::size_t>(frame)];
    // Not released before the engine knows that the frame has another result.
    auto const earlier = held.lock();
    if (earlier != nullptr) leave_behind(*earlier);
    readers_.take(frame, stream_of(args.cuda_stream));
    // The last owner may be about to release the result, on another thread: it is as if it were held.
    if (earlier == nullptr && !bays_.is_over(frame) && !in_graphs_[static_cast<std::size_t>(frame)])
      bays_.move(frame);
    BayStay const stay = bays_.begin(frame);
    auto lease = std::make_shared<Lease>();
    lease->frame = frame;
    lease->bay = stay.bay;
    lease->number = calls_ + 1;
    lease->layout = args.layout;
    lease->num_tokens = args.x.size(0);
    lease->buffer_id = info_.buffer_id;
    lease->generation = info_.generation;
    held = lease;
    std::uint64_t const number = ++dispatches_;
    engine_.begin(frame, number);
    lease->give_back = [this, self = shared_from_this(), frame, number, captured, stay] {
      auto const readers = readers_.take_readers(stay.bay);
      auto const give_back = [this, frame, number, captured, stay](std::span<std::uintptr_t const> streams) {
        bays_.release(stay);
        engine_.release({.frame = frame, .number = number, .captured = captured, .readers = streams});
      };
      if (readers.empty() || captured || engine_.expects_replays()) return give_back(readers);
      readers_.defer(frame, readers, [give_back] { give_back({}); });
      // A capture may have begun meanwhile, on another thread.
      if (engine_.expects_replays()) readers_.flush();
    };
    if (captured) in_graphs_[static_cast<std::size_t>(frame)] = true;
    ++calls_;
    return lease;
  }

  cuda::SlotDispatchArgs kernel_of(LowLatencyDispatchArgs const& args, SlotRows const& rows) const {
    auto kernel = engine_.with_common<cuda::SlotDispatchArgs>();
    kernel.rank_major = args.layout == SlotLayout::rank_major;
    kernel.tokens = args.x.size(0);
    kernel.digest = dispatch_digest(args);
    kernel.wait_ns = static_cast<std::int64_t*>(args.wait_ns_per_source.data);
    kernel.ids = cuda::view_of_ids(args.topk_idx);
    kernel.x = byte_rows_of(args.x);
    if (args.x.dtype == DType::u8) kernel.scale_rows = byte_rows_of(args.scales);
    if (args.x.dtype == DType::f8e4m3) {
      kernel.scales = static_cast<float const*>(args.scales.data);
      kernel.scale_strides[0] = args.scales.stride(0);
      kernel.scale_strides[1] = args.scales.stride(1);
    }
    kernel.weights = cuda::view_of_weights(args.topk_weights);
    kernel.cast = args.cast;
    kernel.dtype = args.x.dtype;
    kernel.hidden = args.x.size(1);
    kernel.row_bytes = static_cast<std::uint32_t>(rows.row_bytes());
    kernel.scale_bytes = static_cast<std::uint32_t>(rows.scale_bytes());
    kernel.scales_by_column = rows.column_major();
    // A cast writes rows of another length than it reads, so both must suit.
    if (args.cast != SendCast::none && kernel.row_bytes % 16 != 0) kernel.x.width = 1;
    kernel.received_per_expert = static_cast<std::int32_t*>(args.received_per_expert.data);
    kernel.counts = static_cast<std::int32_t*>(args.counts.data);
    return kernel;
  }

  std::pair<LowLatencyReceived, cuda::SlotDispatchArgs> start(LowLatencyDispatchArgs const& args, bool receive) {
    CurrentDevice const current(device_);
    engine_.check_usable();
    cuda::check_gpu_call(args, info_, sms_);
    SlotRows const rows = slot_rows_of(args);
    std::uint64_t const capture = cuda::capture_of(stream_of(args.cuda_stream));
    bool const captured = capture != 0;
    // A result that was released in this frame would be forgotten: a dispatch gives it back, but no replay does.
    // What is deferred is given back after that: who defers a result looks for replays afterwards.
    if (captured) engine_.expect_replays();
    readers_.begin_call(stream_of(args.cuda_stream), captured);
    auto const lease = lease_frame(args, captured);
    lease->capture = capture;
    cuda::SlotDispatchArgs kernel = kernel_of(args, rows);
    kernel.frame = lease->frame;
    kernel.bay = lease->bay;
    kernel.captured = captured;
    kernel.send = true;
    kernel.receive = receive;
    engine_.launch(kernel, {blocks_for(args.num_sms, kernel.tokens), stream_of(args.cuda_stream)});
    lease->received = receive;
    return {received_in(place_of(lease->bay), sizes_, rows, lease), kernel};
  }

  cuda::SlotCombineArgs kernel_of(LowLatencyCombineArgs const& args) const {
    Lease const& lease = *args.handle.lease();
    auto kernel = engine_.with_common<cuda::SlotCombineArgs>();
    kernel.frame = lease.frame;
    kernel.bay = lease.bay;
    kernel.rank_major = lease.layout == SlotLayout::rank_major;
    kernel.tokens = lease.num_tokens;
    kernel.digest = combine_digest(args, lease.layout);
    kernel.wait_ns = static_cast<std::int64_t*>(args.wait_ns_per_source.data);
    auto const* const there = engine_.bay(lease.bay) + engine_.layout().outputs;
    auto const* const x = static_cast<std::byte const*>(args.x.data);
    kernel.x = x == there ? nullptr : x;
    kernel.weights = cuda::view_of_weights(args.topk_weights);
    kernel.coding = args.coding;
    kernel.dtype = args.x.dtype;
    kernel.hidden = info_.options.hidden;
    auto const hidden = static_cast<std::size_t>(info_.options.hidden);
    bool const coded = args.coding == CombineCoding::logfmt10;
    kernel.output_bytes = static_cast<std::uint32_t>(coded ? logfmt_row_bytes(hidden) : 2 * hidden);
    kernel.out = static_cast<std::byte*>(args.out.data);
    kernel.out_stride = row_stride_of(args.out);
    // The width must suit the rows that are copied and those that are written.
    auto const in = cuda::width_of(kernel.x, 0, 2 * info_.options.hidden);
    kernel.width = cuda::width_of(args.out.data, kernel.out_stride, in) == 16 ? 16 : 2;
    return kernel;
  }

  cuda::SlotCombineArgs start(LowLatencyCombineArgs const& args, bool receive) {
    CurrentDevice const current(device_);
    engine_.check_usable();
    cuda::check_gpu_call(args, info_, sms_);
    std::uint64_t const capture = cuda::capture_of(stream_of(args.cuda_stream));
    readers_.begin_call(stream_of(args.cuda_stream), capture != 0);
    Lease& lease = *args.handle.lease();
    cuda::check_turn(args, info_, calls_, engine_.bay(lease.bay) + engine_.layout().outputs);
    cuda::SlotCombineArgs kernel = kernel_of(args);
    kernel.captured = capture != 0;
    // A graph that has the combine without its dispatch repeats it at each replay.
    kernel.may_repeat = lease.combined || (kernel.captured && capture != lease.capture);
    kernel.send = true;
    kernel.receive = receive;
    int const tokens_blocks = blocks_for(args.num_sms, kernel.tokens);
    bool const copies = kernel.x != nullptr;
    int const blocks = copies ? blocks_for(args.num_sms, sms_.most) : receive ? tokens_blocks : 1;
    engine_.launch(kernel, {blocks, stream_of(args.cuda_stream)});
    lease.combined = true;
    return kernel;
  }

  template <typename Kernel>
  void run(Kernel& kernel, int blocks, std::uintptr_t stream) {
    engine_.check_alive();
    kernel.captured = is_capturing(stream_of(stream));
    engine_.launch(kernel, {blocks, stream_of(stream)});
  }

  Communicator communicator_;
  BufferSetup setup_;
  int device_;
  SlotSizes sizes_;
  ConnectedHeap host_;
  ConnectedDeviceHeap connected_;
  LowLatencyInfo info_;
  std::array<std::weak_ptr<Lease>, max_frames> held_;
  std::array<bool, max_frames> in_graphs_{};  // a dispatch into the frame was captured, with its bay
  Bays bays_;
  cuda::LowLatency engine_;
  cuda::ReadBays readers_;        // after the engine, which it gives frames back to
  std::uint64_t calls_ = 0;       // since the last reset
  std::uint64_t dispatches_ = 0;  // ever
  SmShare sms_;
  int num_sms_ = 0;
};

}  // namespace

std::shared_ptr<LowLatencyEngine> make_cuda_low_latency(Communicator const& communicator,
                                                        LowLatencyOptions const& options) {
  return std::make_shared<CudaLowLatency>(communicator, options);
}

}  // namespace switchyard::detail
