#include "engine/cuda/throughput/engine.hpp"

#include <fmt/core.h>

#include <array>
#include <span>
#include <thread>
#include <utility>

#include "base/check.hpp"
#include "base/refusal.hpp"
#include "engine/cuda/host/launch.hpp"
#include "engine/cuda/host/trouble.hpp"
#include "engine/cuda/throughput/launch.hpp"
#include "engine/cuda/throughput/results.hpp"

namespace switchyard::cuda {

namespace {

// Calls whose host waits settle a mismatch themselves; this is for the others.
Error mismatch_error(Trouble const& trouble, int rank) {
  return InvalidArgument(
      fmt::format("rank {}: rank {} made another call, or refused, while this rank did not wait for it "
                  "(num_worst_tokens, or errors_at_once = false)",
                  rank, trouble.peer),
      {.rank = rank, .peer = trouble.peer, .phase = name_of(trouble.point)});
}

// A phase of a call, by the stamp that ends it.
struct NamedPhase {
  Stamp end;
  char const* name;
};

constexpr std::size_t most_calls_ahead = 8;

constexpr std::array of_dispatch{NamedPhase{Stamp::started, "launch"}, NamedPhase{Stamp::counted, "count"},
                                 NamedPhase{Stamp::agreed, "agree"},   NamedPhase{Stamp::answered, "answer"},
                                 NamedPhase{Stamp::moved, "move"},     NamedPhase{Stamp::closed, "close"}};
constexpr std::array of_combine{NamedPhase{Stamp::started, "launch"}, NamedPhase{Stamp::counted, "stage"},
                                NamedPhase{Stamp::agreed, "agree"}, NamedPhase{Stamp::moved, "sum"},
                                NamedPhase{Stamp::closed, "close"}};
constexpr std::array of_layout{NamedPhase{Stamp::started, "launch"}, NamedPhase{Stamp::counted, "count"}};

}  // namespace

Engine::Engine(EngineResources resources, SmProblem const& problem)
    : resources_(std::move(resources)),
      problem_(problem),
      heap_(resources_.device_heap),
      experts_(resources_.control.num_experts, resources_.control.num_ranks),
      job_(Topology::of_sizes(std::array{resources_.control.num_ranks}), 0),
      control_(resources_.host_heap, control_layout(resources_.control.num_ranks, experts_.max_count())),
      monitor_(resources_, experts_.max_count(), {.calls_settle_it = true, .error = mismatch_error}),
      stream_(resources_.device),
      joined_(resources_.device),
      finished_(resources_.device),
      peers_(peers_of(resources_)) {
  CurrentDevice const current(resources_.device);
  load_kernels({{"notify", load_notify},
                {"dispatch", load_dispatch},
                {"combine", load_combine},
                {"cast", load_cast},
                {"layout", load_layout},
                {"results", load_results},
                {"gate", load_gate}});
  int major = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, resources_.device),
             "compute capability");
  if (major >= 9) rings_ = {.dispatch = dispatch_shared_bytes(), .combine = combine_shared_bytes()};
  // No id is bad yet.
  auto* const bad_id = heap_->control(heap_->rank()) + peers_.control.state + offsetof(DeviceState, bad_id);
  check_cuda(cudaMemset(bad_id, 0xff, sizeof(std::uint64_t)), "clearing the engine's state");
  check_cuda(cudaDeviceSynchronize(), "clearing the engine's state");
  monitor_.start();
}

Engine::~Engine() {
  // Kernels end by their own deadlines at the latest. Then nothing uses the blocks any more.
  cudaStreamSynchronize(stream_.get());
  // A rank that refused a call that this one did not wait for waits for this rank's word on it.
  static_cast<void>(refusal_of([this] { monitor_.check_usable(); }));
  // Freeing GPU memory waits for all kernels of the context, also for those of peers (threads) that wait for this
  // rank. So they must learn that it leaves before it frees its heap.
  monitor_.signals().leave();
  monitor_.stop();
}

void Engine::join(cudaStream_t caller) {
  if (!std::exchange(joined_already_, false)) make_engine_wait(caller, is_capturing(caller));
}

void Engine::make_engine_wait(cudaStream_t caller, bool capturing) {
  capturing_ = capturing;
  behind_.reset();
  if (!capturing_) close_call();
  // A capture may not wait for what is outside of it. The next call that is not captured does.
  if (!capturing_) {
    if (auto const earlier = heap_->note_caller(reinterpret_cast<std::uintptr_t>(caller))) {
      joined_.record(stream_of(*earlier));
      joined_.make_stream_wait(stream_.get());
    }
  }
  if (caller == stream_.get()) return;
  joined_.record(caller);
  joined_.make_stream_wait(stream_.get());
}

void Engine::start_after(cudaStream_t caller, bool capturable) {
  CurrentDevice const current(resources_.device);
  joined_already_ = false;  // an earlier call may have failed before it asked
  bool const capturing = is_capturing(caller);
  require(
      !capturing || capturable,
      "cuda_stream: expected num_worst_tokens > 0 in the dispatch of a call that is captured into a graph, seen a "
      "call whose host waits for counts");
  make_engine_wait(caller, capturing);
  joined_already_ = true;
}

bool Engine::may_write(cudaStream_t caller) const {
  if (capturing_) return false;  // memory that a graph writes must live as long as the graph
  return behind_ == caller || heap_->is_only_caller(reinterpret_cast<std::uintptr_t>(caller));
}

void Engine::make_caller_wait(cudaStream_t caller) {
  behind_ = caller;
  if (caller == stream_.get()) return;
  CurrentDevice const current(resources_.device);
  // One event says it to the caller's stream, and when the blocks of the call are free.
  if (!capturing_ && !of_this_call_.empty()) return close_with_event().make_stream_wait(caller);
  finished_.record(stream_.get());
  finished_.make_stream_wait(caller);
}

std::shared_ptr<detail::EventState> Engine::record(std::weak_ptr<void> alive) {
  return std::make_shared<StreamPoint>(resources_.device, stream_.get(),
                                       [this, alive = std::move(alive), generation = monitor_.generation()] {
                                         if (auto const lock = alive.lock()) monitor_.check_usable(*generation);
                                       });
}

void Engine::gate() {
  queue_gate(resources_, monitor_.waiting(), ++gates_, stream_.get());
}

void Engine::get_layout(LayoutCall const& call, Layout const& to, cudaStream_t caller) {
  CurrentDevice const current(resources_.device);
  make_engine_wait(caller, is_capturing(caller));
  latest_ = Call::layout;
  LayoutKernelArgs args{};
  args.peers = peers_;
  args.experts = experts_;
  args.handle.num_tokens = call.topk_idx.size(0);
  args.handle.top_k = static_cast<int>(call.topk_idx.size(1));
  args.ids = view_of_ids(call.topk_idx);
  args.cut = cut(args.handle.num_tokens, call.workers);
  args.tokens_per_rank = to.num_tokens_per_rank.data<std::int32_t>();
  args.tokens_per_expert = to.num_tokens_per_expert.data<std::int32_t>();
  args.is_token_in_rank = to.is_token_in_rank.data<std::uint8_t>();
  check_cuda(launch_layout(args, stream_.get()), "launching the layout kernel");
}

std::vector<PhaseTime> Engine::phases() const {
  std::array<std::uint64_t, static_cast<std::size_t>(Stamp::count)> stamps{};
  CurrentDevice const current(resources_.device);
  check_cuda(cudaMemcpy(stamps.data(), heap_->control(heap_->rank()) + peers_.control.stamps, sizeof stamps,
                        cudaMemcpyDeviceToHost),
             "reading the phases of a call");
  std::span<NamedPhase const> const names = latest_ == Call::dispatch  ? std::span<NamedPhase const>(of_dispatch)
                                            : latest_ == Call::combine ? std::span<NamedPhase const>(of_combine)
                                                                       : std::span<NamedPhase const>(of_layout);
  std::uint64_t before = stamps[static_cast<std::size_t>(Stamp::released)];
  std::vector<PhaseTime> times;
  for (NamedPhase const& phase : names) {
    std::uint64_t const end = stamps[static_cast<std::size_t>(phase.end)];
    if (end < before) continue;  // an earlier call left it
    if (before > 0) times.push_back({phase.name, static_cast<double>(end - before) / 1e3});
    before = end;
  }
  return times;
}

void Engine::close_call() {
  if (!of_this_call_.empty()) close_with_event();
  release_what_is_done();
}

DeviceEvent const& Engine::close_with_event() {
  auto event = spare_event();
  event->record(stream_.get());
  in_use_.emplace_back(std::move(event), std::move(of_this_call_));
  of_this_call_.clear();
  return *in_use_.back().first;
}

// To make an event and to end it takes the driver about as long as to record it.
std::unique_ptr<DeviceEvent> Engine::spare_event() {
  if (spare_events_.empty()) return std::make_unique<DeviceEvent>(resources_.device);
  auto event = std::move(spare_events_.back());
  spare_events_.pop_back();
  return event;
}

void Engine::release_what_is_done() {
  if (capturing_) return;
  while (!in_use_.empty() && in_use_.front().first->done()) {
    if (spare_events_.size() < most_calls_ahead) spare_events_.push_back(std::move(in_use_.front().first));
    in_use_.pop_front();
  }
}

void Engine::keep_until_done(SymmetricHeap::Block block) {
  if (!capturing_) of_this_call_.push_back(std::move(block));
}

void Engine::keep_own(SymmetricHeap::Block block) {
  (capturing_ ? of_graphs_ : of_this_call_).push_back(std::move(block));
}

std::optional<SymmetricHeap::Block> Engine::take(std::size_t bytes) {
  if (auto block = heap_->allocate(bytes)) return block;
  release_what_is_done();
  if (auto block = heap_->allocate(bytes)) return block;
  // A host far ahead of its GPU would let the heap grow for every call that it is ahead.
  if (in_use_.size() > most_calls_ahead) reclaim();
  if (auto block = heap_->allocate_growing(bytes)) return block;
  reclaim();
  return heap_->allocate(bytes);
}

// The blocks of a call that is being made stay, because kernels of it may still be launched.
void Engine::reclaim() {
  if (is_capturing(stream_.get())) return;
  CurrentDevice const current(resources_.device);
  // The wait ends: these are collective calls, which the peers make, too.
  check_cuda(cudaStreamSynchronize(stream_.get()), "waiting for earlier calls");
  in_use_.clear();
}

void Engine::reclaim_between_calls() {
  if (is_capturing(stream_.get())) return;
  CurrentDevice const current(resources_.device);
  close_call();
  reclaim();
}

// An error of the GPU itself (for a bad address of the caller's, say) is sticky, so that waiting would be in vain.
void Engine::check_stream() {
  cudaError_t const error = cudaStreamQuery(stream_.get());
  if (error == cudaSuccess || error == cudaErrorNotReady) return;
  monitor_.signals().fail(
      SystemError(fmt::format("rank {}: the GPU reports: {}", heap_->rank(), cudaGetErrorString(error)),
                  {.rank = heap_->rank()}));
}

void Engine::wait_until(std::function<bool()> const& published) {
  constexpr int polls_between_checks = 1 << 14;
  // Kernels have deadlines of their own, and some of their blocks wait for what another block waits for, twice as
  // long. Calls that no host has waited for may come first: each has its own time.
  auto const patience = 2 * resources_.wait.timeout + std::chrono::seconds{5};
  Deadline deadline(patience);
  std::uint64_t latest = mailbox().ticket().number;
  for (int poll = 1; !published(); ++poll) {
    if (poll % 64 == 0) std::this_thread::yield();  // there may be more ranks than cores
    if (poll % polls_between_checks != 0) continue;
    check_stream();
    if (std::exchange(latest, mailbox().ticket().number) != latest) deadline = Deadline(patience);
    if (deadline.expired()) {
      monitor_.signals().fail(Timeout(fmt::format("rank {}: the GPU did not answer in time", heap_->rank()),
                                      {.rank = heap_->rank(), .phase = "gpu"}));
    }
  }
}

// In a capture nothing runs that could publish the refusal to peers, and no peer waits for it.
void Engine::refuse_in_capture(std::optional<Refusal> const& refusal) const {
  if (capturing_ && refusal) throw_error(refusal->code, refusal->text, {.rank = heap_->rank(), .phase = "capture"});
}

void Engine::wait_for_ticket() {
  wait_until([this] { return mailbox().ticket().number >= ticket_; });
  if (mailbox().ticket().failed) wait_until([this] { return mailbox().has_trouble(); });
}

void Engine::wait_for_answers() {
  wait_until([this] { return mailbox().answered().number >= ticket_; });
  if (mailbox().answered().failed) wait_until([this] { return mailbox().has_trouble(); });
}

// After a mismatch, when no kernel runs, so that the next call starts clean.
void Engine::reset_device() {
  auto* const state = heap_->control(heap_->rank()) + peers_.control.state;
  std::size_t const bytes = sizeof(std::uint32_t) * 3;
  check_cuda(cudaMemsetAsync(state + offsetof(DeviceState, failed), 0, bytes, stream_.get()),
             "resetting the engine");
  check_cuda(cudaStreamSynchronize(stream_.get()), "resetting the engine");
  mailbox().clear_trouble();
}

// Kernels have only seen that ranks differ. The hosts find out how, and all throw the same error.
void Engine::throw_mismatch(Cause const& cause) {
  check_cuda(cudaStreamSynchronize(stream_.get()), "ending a refused call");
  reset_device();
  try {
    open_call(link(),
              {.epoch = ++host_epoch_, .phase = cause.phase, .terms = cause.terms, .refusal = cause.refusal});
  } catch (Error const&) {
    // A peer whose host does not wait for this call fails the buffer instead, or has left. It does not know why,
    // but this rank does.
    if (cause.refusal && monitor_.signals().has_failed())
      throw_error(
          cause.refusal->code,
          fmt::format("rank {}: {}; this buffer has failed, because other ranks did not wait for the call: call "
                      "reset() on all ranks, or make a new one on all ranks",
                      heap_->rank(), cause.refusal->text),
          {.rank = heap_->rank(), .phase = cause.phase});
    throw;
  }
  monitor_.signals().fail(
      SystemError(fmt::format("rank {}: kernels saw calls that differ, and hosts none", heap_->rank()),
                  {.rank = heap_->rank(), .phase = cause.phase}));
}

void Engine::throw_if_failed(Cause const& cause) {
  if (!mailbox().has_trouble()) return;
  Trouble const& trouble = mailbox().get().trouble;
  // That of an earlier call, whose host did not wait, is the monitor's.
  if (trouble.kind == TroubleKind::mismatch && trouble.call >= first_ticket_) throw_mismatch(cause);
  monitor_.check_usable();  // throws, because there is a trouble
}

void Engine::begin_call(Call kind) {
  ++calls_;  // combines count as well, so that ranks that make different calls have the same number
  latest_ = kind;
  first_ticket_ = ticket_ + 1;
}

}  // namespace switchyard::cuda
