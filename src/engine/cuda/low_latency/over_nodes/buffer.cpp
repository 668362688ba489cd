// LowLatencyBuffer on GPUs of several nodes: the host's engine makes the calls, in its own slots, and kernels copy
// between these and the GPU. A send half is a copy of the inputs, and work for the host behind it in the stream. A
// receive half is such work, a wait of the stream for it, and a copy of what came. Nothing runs on the GPU between
// the halves, nor while the stream waits; and the host's engine keeps its deadlines, so that the stream goes on
// whatever becomes of other ranks.
#include <array>
#include <optional>
#include <utility>

#include "base/check.hpp"
#include "call/bays.hpp"
#include "call/low_latency.hpp"
#include "call/setup.hpp"
#include "engine/cuda/host/device_event.hpp"
#include "engine/cuda/host/gpu_checks.hpp"
#include "engine/cuda/low_latency/call_checks.hpp"
#include "engine/cuda/low_latency/over_nodes/host_calls.hpp"
#include "engine/cuda/low_latency/over_nodes/result_bays.hpp"
#include "engine/cuda/low_latency/over_nodes/stream_tasks.hpp"
#include "job/job.hpp"
#include "layout/experts.hpp"
#include "memory/device/driver.hpp"
#include "node/agreement.hpp"

namespace switchyard::detail {

namespace {

using cuda::HostUse;

struct NodesLease final : Lease {
  std::shared_ptr<HostUse> use;
};

// A dispatch that has been sent.
struct Sent {
  LowLatencyReceived result;
  LowLatencyDispatchArgs args;
  std::shared_ptr<NodesLease> lease;
};

class NodesLowLatency final : public LowLatencyEngine {
 public:
  NodesLowLatency(Communicator communicator, LowLatencyOptions const& options,
                  std::shared_ptr<LowLatencyEngine> host)
      : communicator_(std::move(communicator)),
        host_(std::move(host)),
        device_(choose_device(job(), options.device)),
        sizes_(slot_sizes_of(options, job().size())),
        local_experts_(ExpertSplit(options.num_experts, job().size()).count(job().rank())),
        info_{.options = options,
              .num_ranks = job().size(),
              .rank = job().rank(),
              .buffer_id = host_->buffer_id(),
              .device = Device::cuda} {
    info_.options.device = device_;
    agree(job(), refusal_of([&] { connect(); }));
  }
  ~NodesLowLatency() override { end(); }
  NodesLowLatency(NodesLowLatency const&) = delete;
  NodesLowLatency& operator=(NodesLowLatency const&) = delete;

  LowLatencyReceived dispatch(LowLatencyDispatchArgs const& args) override {
    Sent const sent = send(args);
    receive(sent, args.cuda_stream);
    return sent.result;
  }

  LowLatencyReceived send_dispatch(LowLatencyDispatchArgs const& args, ReceiveHook& hook) override {
    Sent sent = send(args);
    LowLatencyReceived result = sent.result;
    hook = cuda::once(shared_from_this(),
                      [this, sent = std::move(sent)](std::uintptr_t stream) { receive(sent, stream); });
    return result;
  }

  void combine(LowLatencyCombineArgs const& args) override {
    send(args);
    receive(args, args.cuda_stream);
  }

  void send_combine(LowLatencyCombineArgs const& args, ReceiveHook& hook) override {
    send(args);
    args.handle.lease()->combine_received = false;
    hook = cuda::once(shared_from_this(), [this, args](std::uintptr_t stream) { receive(args, stream); });
  }

  Tensor outputs(LowLatencyHandle const& handle, DType dtype) override {
    check_low_latency_handle(handle, info_);
    check_outputs_dtype(dtype);
    return outputs_in(place_of(handle.lease()->bay), sizes_, dtype, info_.options.hidden, handle.lease());
  }

  void mask(int rank, bool masked) override {
    check_peer(rank, info_);
    wait_for_calls();
    calls_->with_host([&](LowLatencyEngine& host) { host.mask(rank, masked); });
  }
  std::vector<bool> masked() override {
    wait_for_calls();
    return calls_->with_host([](LowLatencyEngine& host) { return host.masked(); });
  }
  void reset() override {
    wait_for_calls();
    calls_->reset();
    ++info_.generation;
    dispatches_ = 0;
    for (auto& lease : held_) lease.reset();
  }
  void synchronize() override {
    wait_for_calls();
    calls_->check_usable();
  }
  // Work of the host, like any half, so that a gate in a graph is one at each replay.
  void gate(std::uintptr_t cuda_stream) override {
    cudaStream_t const stream = stream_of(cuda_stream);
    queue(stream, [&](bool captured) {
      tasks_->add(
          stream, [this] { calls_->meet(); }, captured);
      await_half(stream);
      end_wait(stream);
    });
  }
  [[nodiscard]] WireCount wire_count() const override {
    return calls_->with_host([](LowLatencyEngine const& host) { return host.wire_count(); });
  }
  void drain() noexcept override {
    static_cast<void>(refusal_of([this] { wait_for_calls(); }));
  }
  [[nodiscard]] EngineKind engine() const noexcept override { return EngineKind::cuda; }
  [[nodiscard]] Communicator const& communicator() const noexcept override { return communicator_; }
  [[nodiscard]] LowLatencyOptions const& options() const noexcept override { return info_.options; }
  [[nodiscard]] std::size_t bytes() const noexcept override {
    return slot_layout(sizes_).bay_bytes * static_cast<std::size_t>(sizes_.frames);
  }
  [[nodiscard]] std::uint64_t buffer_id() const noexcept override { return info_.buffer_id; }

 private:
  Job& job() { return *communicator_.job(); }

  void connect() {
    CurrentDevice const current(device_);
    sms_ = {.most = multiprocessors_of(device_)};
    constexpr int most_experts = 12288;  // of a rank: a kernel has their counts in 48 KiB of shared memory
    require(local_experts_ <= most_experts, "num_experts: expected at most {} a rank over nodes on GPUs, seen {}",
            most_experts, local_experts_);
    latest_done_.emplace(device_);
    check_sms(info_.options.num_sms, sms_);
    check_cuda(cuda::load_copies(), "loading kernels of the low-latency mode over nodes");
    pinned_ = cuda::pin(device_, host_->slots());
    staging_ = std::make_unique<cuda::Staging>(
        cuda::StagingSizes{.slots = sizes_, .hidden = info_.options.hidden, .local_experts = local_experts_});
    bays_ = std::make_unique<cuda::ResultBays>(device_, slot_layout(sizes_).bay_bytes, sizes_.frames);
    calls_ = std::make_unique<cuda::HostCalls>(host_, *staging_);
    tasks_ = std::make_unique<cuda::StreamTasks>();
  }

  // After `latest_done_` no stream comes to any task. What is given back then may be so while streams are captured.
  void end() noexcept {
    HarmlessToCaptures const harmless;
    if (latest_done_) latest_done_->wait_quietly();
    tasks_.reset();
    calls_.reset();
    bays_.reset();
    aside_ = {};
    staging_.reset();
    pinned_.reset();
  }

  // Waits for all calls so far. They end by their deadlines, once the caller's work before them has.
  void wait_for_calls() {
    CurrentDevice const current(device_);
    HarmlessToCaptures const harmless;
    if (any_call_) latest_done_->wait();
    tasks_->wait();
  }

  [[nodiscard]] BayPlace place_of(int bay) const {
    return {.bay = bays_->at(bay), .device = Device::cuda, .local_experts = local_experts_};
  }
  // Copies are few, and what they read or write is memory of the host, whose rate a few SMs reach.
  [[nodiscard]] int blocks(int of_call) const {
    constexpr int usual = 16;
    int const wish = of_call > 0 ? of_call : info_.options.num_sms;
    return wish > 0 ? wish : std::min(usual, sms_.most);
  }

  // Calls are in one order, whichever streams they are on. Returns whether `stream` is being captured.
  bool begin_call(cudaStream_t stream) {
    if (is_capturing(stream)) return true;
    if (any_call_ && stream != latest_stream_) latest_done_->make_stream_wait(stream);
    return false;
  }
  void end_call(cudaStream_t stream, bool captured) {
    if (captured) return;
    latest_stream_ = stream;
    any_call_ = true;
    latest_done_->record(stream);
  }

  std::shared_ptr<NodesLease> lease_frame(LowLatencyDispatchArgs const& args, bool captured) {
    auto const frame = static_cast<int>(dispatches_ % static_cast<std::uint64_t>(sizes_.frames));
    auto& held = held_[static_cast<std::size_t>(frame)];
    if (auto const earlier = held.lock())
      check_may_move({.received = earlier->received && earlier->combine_received,
                      .captured = in_graphs_[static_cast<std::size_t>(frame)],
                      .frames = sizes_.frames});
    auto lease = std::make_shared<NodesLease>();
    lease->frame = frame;
    lease->bay = bays_->take(stream_of(args.cuda_stream), captured);
    if (captured) in_graphs_[static_cast<std::size_t>(frame)] = true;
    lease->number = ++dispatches_;
    lease->layout = args.layout;
    lease->num_tokens = args.x.size(0);
    lease->buffer_id = info_.buffer_id;
    lease->generation = info_.generation;
    lease->use = std::make_shared<HostUse>();
    lease->use->number = ++uses_;
    lease->use->frame = &staging_->frame(frame);
    lease->use->captured = captured;
    lease->give_back = [this, self = shared_from_this(), use = lease->use, bay = lease->bay] {
      calls_->release(*use);
      bays_->give_back(bay);
    };
    held = lease;
    return lease;
  }

  // A call of which a part is queued and a part is not would leave ranks with different calls, so it fails. Peers
  // learn of it by their deadlines.
  template <typename Step>
  void queue(cudaStream_t stream, Step const& step) {
    CurrentDevice const current(device_);
    try {
      bool const captured = begin_call(stream);
      step(captured);
      end_call(stream, captured);
    } catch (Error const& error) {
      give_up(stream, error);
      throw;
    } catch (std::exception const& error) {  // no memory, most likely
      give_up(stream, SystemError(error.what(), {.rank = info_.rank}));
      throw;
    }
  }
  // What was queued is waited for all the same.
  void give_up(cudaStream_t stream, Error const& error) {
    calls_->fail(error);
    static_cast<void>(refusal_of([&] { end_call(stream, is_capturing(stream)); }));
  }

  void copy(cuda::CopyArgs const& args, int num_sms, cudaStream_t stream) const {
    check_cuda(cuda::launch_copies(args, blocks(num_sms), stream), "launching a copy");
  }

  // `make` calls one of the halves of HostCalls.
  template <typename Make>
  void add_half(cudaStream_t stream, std::shared_ptr<HostUse> const& use, bool captured, Make make) {
    tasks_->add(
        stream, [this, half = calls_->expect(use, captured), make = std::move(make)] { make(*calls_, half); },
        captured);
  }

  // The stream waits, without any kernel, until the host has made the half, and so all before it.
  void await_half(cudaStream_t stream) {
    auto const word = reinterpret_cast<CUdeviceptr>(&staging_->end().done);
    check_driver(Driver::get().wait_value(reinterpret_cast<CUstream>(stream), word, 1, CU_STREAM_WAIT_VALUE_EQ),
                 "waiting for the host in a stream");
    reading_.fill(false);
  }
  void end_wait(cudaStream_t stream) const {
    cuda::CopyArgs nothing;
    nothing.end = &staging_->end();
    check_cuda(cuda::launch_copies(nothing, 1, stream), "launching the end of a wait");
  }
  // The frame's pinned memory gets other inputs, which the host may still read where nobody waited for a half
  // since.
  void settle(int frame, cudaStream_t stream, bool captured) {
    bool& reading = reading_[static_cast<std::size_t>(frame)];
    if (reading) {
      tasks_->add(
          stream, [this] { calls_->settle(); }, captured);
      await_half(stream);
      end_wait(stream);
    }
    reading = true;
  }

  Sent send(LowLatencyDispatchArgs const& args) {
    CurrentDevice const current(device_);
    calls_->check_usable();
    cuda::check_gpu_call(args, info_, sms_);
    cudaStream_t const stream = stream_of(args.cuda_stream);
    std::uint64_t const capture = cuda::capture_of(stream);
    bool const captured = capture != 0;
    if (!captured) bays_->begin_call(stream);
    auto const lease = lease_frame(args, captured);
    lease->capture = capture;
    LowLatencyReceived result = received_in(place_of(lease->bay), sizes_, slot_rows_of(args), lease);
    queue(stream, [&](bool) {
      cuda::StagedFrame const& frame = *lease->use->frame;
      settle(lease->frame, stream, captured);
      copy(inputs_to_host(args, frame), args.num_sms, stream);
      add_half(stream, lease->use, captured, [of_host = on_host(args, frame)](auto& calls, auto const& half) {
        calls.send_dispatch(half, of_host);
      });
    });
    return {std::move(result), args, lease};
  }

  void receive(Sent const& sent, std::uintptr_t cuda_stream) {
    if (sent.lease->generation != info_.generation) return;  // a reset has made it void
    cudaStream_t const stream = stream_of(cuda_stream);
    queue(stream, [&](bool captured) {
      add_half(stream, sent.lease->use, captured,
               [](auto& calls, auto const& half) { calls.receive_dispatch(half); });
      await_half(stream);
      copy(cuda::result_to_device({.received = sent.result,
                                   .args = sent.args,
                                   .frame = *sent.lease->use->frame,
                                   .use = sent.lease->use->number,
                                   .end = staging_->end()}),
           sent.args.num_sms, stream);
    });
    sent.lease->received = true;
  }

  static std::shared_ptr<HostUse> const& use_of(LowLatencyHandle const& handle) {
    return static_cast<NodesLease const&>(*handle.lease()).use;
  }

  void send(LowLatencyCombineArgs const& args) {
    CurrentDevice const current(device_);
    calls_->check_usable();
    cuda::check_gpu_call(args, info_, sms_);
    Lease& lease = *args.handle.lease();
    cuda::check_turn(args, info_, dispatches_, bays_->at(lease.bay) + slot_layout(sizes_).outputs);
    cudaStream_t const stream = stream_of(args.cuda_stream);
    // Outputs go straight to where peers read them, unless they are coded on the way, or peers may still read those
    // of the combine before: a graph that has the combine without its dispatch repeats it at each replay.
    std::uint64_t const capture = cuda::capture_of(stream);
    bool const repeats = lease.combined || (capture != 0 && capture != lease.capture);
    std::byte* const elsewhere = repeats || args.coding != CombineCoding::none ? aside(lease.frame) : nullptr;
    queue(stream, [&](bool captured) {
      auto const& use = use_of(args.handle);
      copy(outputs_to_host(args, *use->frame, use->number, elsewhere), args.num_sms, stream);
      ConstTensorView const x =
          elsewhere == nullptr
              ? ConstTensorView{}
              : ConstTensorView(elsewhere, args.x.dtype, {args.x.size(0), args.x.size(1), args.x.size(2)});
      add_half(stream, use, captured, [of_host = on_host(args, *use->frame, x)](auto& calls, auto const& half) {
        calls.send_combine(half, of_host);
      });
    });
    lease.combined = true;
  }

  void receive(LowLatencyCombineArgs const& args, std::uintptr_t cuda_stream) {
    if (args.handle.lease()->generation != info_.generation) return;
    cudaStream_t const stream = stream_of(cuda_stream);
    queue(stream, [&](bool captured) {
      auto const& use = use_of(args.handle);
      add_half(stream, use, captured, [](auto& calls, auto const& half) { calls.receive_combine(half); });
      await_half(stream);
      copy(sums_to_device(args, *use->frame, staging_->end()), args.num_sms, stream);
    });
    args.handle.lease()->combine_received = true;
  }

  // Where outputs lie from which the host's engine makes its own.
  std::byte* aside(int frame) {
    auto& memory = aside_[static_cast<std::size_t>(frame)];
    if (!memory) {
      HarmlessToCaptures const harmless;
      memory =
          std::make_unique<cuda::PinnedMemory>(sizes_.rows() * static_cast<std::size_t>(info_.options.hidden) * 2);
    }
    return memory->bytes().data();
  }

  Communicator communicator_;
  std::shared_ptr<LowLatencyEngine> host_;  // goes after what pins its slots
  int device_;
  SlotSizes sizes_;
  int local_experts_;
  LowLatencyInfo info_;
  SmShare sms_;
  std::array<std::weak_ptr<NodesLease>, max_frames> held_;  // by frame, that of the latest dispatch
  std::array<bool, max_frames> reading_{};                  // inputs there were sent, and no half was awaited since
  std::uint64_t uses_ = 0;                                  // dispatches, ever
  std::array<bool, max_frames> in_graphs_{};                // a dispatch into the frame was captured
  std::uint64_t dispatches_ = 0;                            // since the last reset
  std::optional<cuda::DeviceEvent> latest_done_;
  cudaStream_t latest_stream_ = nullptr;
  bool any_call_ = false;
  std::shared_ptr<void> pinned_;  // its slots
  std::unique_ptr<cuda::Staging> staging_;
  std::array<std::unique_ptr<cuda::PinnedMemory>, max_frames> aside_;  // by frame
  std::unique_ptr<cuda::ResultBays> bays_;
  std::unique_ptr<cuda::HostCalls> calls_;
  std::unique_ptr<cuda::StreamTasks> tasks_;  // last: its thread uses all of them
};

}  // namespace

std::shared_ptr<LowLatencyEngine> make_cuda_low_latency_over_nodes(Communicator const& communicator,
                                                                   LowLatencyOptions const& options,
                                                                   std::shared_ptr<LowLatencyEngine> const& host) {
  return std::make_shared<NodesLowLatency>(communicator, options, host);
}

}  // namespace switchyard::detail
