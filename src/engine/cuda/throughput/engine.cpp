#include "engine/cuda/throughput/engine.hpp"

#include <fmt/core.h>

#include <cstring>
#include <thread>

#include "base/check.hpp"
#include "engine/cuda/host/launch.hpp"
#include "engine/cuda/host/peers_of.hpp"
#include "engine/cuda/host/trouble.hpp"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

namespace {

// Loading a kernel may wait for the whole context, and so for a peer's kernel that waits for us.
void load_kernels() {
  check_cuda(load_notify(), "loading the notify kernel");
  check_cuda(load_dispatch(), "loading the dispatch kernel");
  check_cuda(load_combine(), "loading the combine kernel");
  check_cuda(load_cast(), "loading the cast kernel");
  check_cuda(load_layout(), "loading the layout kernel");
  check_cuda(load_gate(), "loading the gate kernel");
}

}  // namespace

Engine::Engine(Foundation foundation, EngineOptions const& options)
    : heap_(std::move(foundation.device_heap)),
      node_(std::move(foundation.node)),
      options_(options),
      experts_(options.sizes.num_experts, options.sizes.num_ranks),
      control_(foundation.host_heap, control_layout(options.sizes.num_ranks, experts_.max_count())),
      signals_(foundation.host_heap, node_, options.wait),
      mailbox_(experts_.max_count()),
      stream_(options.device),
      joined_(options.device),
      finished_(options.device),
      peers_(peers_of(*heap_, device_control_layout(options.sizes))) {
  CurrentDevice const current(options.device);
  load_kernels();
  int major = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, options.device),
             "compute capability");
  if (major >= 9) rings_ = {.dispatch = dispatch_shared_bytes(), .combine = combine_shared_bytes()};
  // No id is bad yet.
  auto* const bad_id = heap_->control(heap_->rank()) + peers_.control.state + offsetof(DeviceState, bad_id);
  check_cuda(cudaMemset(bad_id, 0xff, sizeof(std::uint64_t)), "clearing the engine's state");
  check_cuda(cudaDeviceSynchronize(), "clearing the engine's state");
  watch();
}

Engine::~Engine() {
  // Kernels end by their own deadlines at the latest; then nothing uses the blocks any more.
  cudaStreamSynchronize(stream_.get());
  // Freeing GPU memory waits for all kernels of the context: also for those of peers (threads) that wait for this
  // rank. They must hear that it leaves before it frees its heap.
  signals_.leave();
  watchdog_.reset();
}

void Engine::watch() {
  watchdog_ = std::make_unique<Watchdog>([this] { look(); });
}

// Of the watchdog's thread.
void Engine::look() {
  std::uint64_t lost = 0;
  for (int peer = 0; peer < heap_->num_ranks(); ++peer) {
    if (node_->is_lost(peer) || signals_.has_left(peer)) lost |= std::uint64_t{1} << peer;
  }
  mailbox_.set_lost(lost);
  try {
    signals_.check_usable();
    bool const fatal = mailbox_.troubled() && mailbox_.get().trouble.kind != TroubleKind::mismatch;
    if (fatal) signals_.fail(error_of(mailbox_.get().trouble, heap_->rank(), options_.wait.timeout.count()));
  } catch (Error const&) {
    mailbox_.set_aborted();
  }
}

void Engine::raise_trouble() {
  Trouble const& trouble = mailbox_.get().trouble;
  signals_.check_usable();  // what another rank reported tells more
  if (trouble.kind == TroubleKind::mismatch) {
    signals_.fail(InvalidArgument(
        fmt::format("rank {}: rank {} made another call, or refused, while this rank did not wait for counts",
                    heap_->rank(), trouble.peer),
        {.rank = heap_->rank(), .peer = trouble.peer, .phase = name_of(trouble.phase)}));
  }
  signals_.fail(error_of(trouble, heap_->rank(), options_.wait.timeout.count()));
}

void Engine::check_usable() {
  signals_.check_usable();
  if (!mailbox_.troubled()) return;
  std::lock_guard const lock(trouble_mutex_);
  if (mailbox_.troubled()) raise_trouble();
}

Waiting Engine::waiting() const {
  auto const timeout = std::chrono::duration_cast<std::chrono::nanoseconds>(options_.wait.timeout);
  return {.mailbox = mailbox_.device(), .timeout_ns = static_cast<std::uint64_t>(timeout.count())};
}

void Engine::join(cudaStream_t caller) {
  capturing_ = is_capturing(caller);
  if (!capturing_) close_call();
  if (caller == stream_.get()) return;
  joined_.record(caller);
  joined_.hold(stream_.get());
}

void Engine::follow(cudaStream_t caller, bool capturable) {
  CurrentDevice const current(options_.device);
  require(
      !is_capturing(caller) || capturable,
      "cuda_stream: expected num_worst_tokens > 0 in the dispatch of a call that is captured into a graph, seen a "
      "call whose host waits for counts");
  join(caller);
}

void Engine::hold(cudaStream_t caller) {
  if (caller == stream_.get()) return;
  CurrentDevice const current(options_.device);
  finished_.record(stream_.get());
  finished_.hold(caller);
}

std::shared_ptr<detail::EventState> Engine::record(std::weak_ptr<void> alive) {
  return std::make_shared<StreamPoint>(options_.device, stream_.get(),
                                       [this, alive = std::move(alive), era = era_] {
                                         if (auto const lock = alive.lock()) check(*era);
                                       });
}

void Engine::gate() {
  CurrentDevice const current(options_.device);
  // Longer than a host takes to queue a call, with all ranks at it.
  constexpr std::chrono::nanoseconds hold = std::chrono::microseconds{150};
  check_cuda(launch_gate({.peers = peers_,
                          .waiting = waiting(),
                          .round = ++gates_,
                          .hold_ns = static_cast<std::uint64_t>(hold.count()),
                          .one_clock = options_.ranks_per_gpu == heap_->num_ranks()},
                         stream_.get()),
             "launching the gate kernel");
}

void Engine::close_call() {
  if (!of_this_call_.empty()) {
    auto event = std::make_unique<DeviceEvent>(options_.device);
    event->record(stream_.get());
    in_use_.emplace_back(std::move(event), std::move(of_this_call_));
    of_this_call_.clear();
  }
  while (!in_use_.empty() && in_use_.front().first->done()) in_use_.pop_front();
}

void Engine::keep_until_done(SymmetricHeap::Block block) {
  // What goes into a graph must be kept by its owner as long as the graph.
  if (!capturing_) of_this_call_.push_back(std::move(block));
}

void Engine::keep_own(SymmetricHeap::Block block) {
  if (!capturing_) return keep_until_done(std::move(block));
  of_graphs_.push_back(std::move(block));
}

std::optional<SymmetricHeap::Block> Engine::take(std::size_t bytes) {
  auto block = heap_->allocate(bytes);
  if (block) return block;
  reclaim();
  return heap_->allocate(bytes);
}

// Blocks of a call that is being made stay: kernels of it may still be launched.
void Engine::reclaim() {
  if (is_capturing(stream_.get())) return;
  CurrentDevice const current(options_.device);
  // They are collective calls: peers make them, too, and so they end.
  check_cuda(cudaStreamSynchronize(stream_.get()), "waiting for earlier calls");
  in_use_.clear();
}

void Engine::reclaim_between_calls() {
  if (is_capturing(stream_.get())) return;
  CurrentDevice const current(options_.device);
  close_call();
  reclaim();
}

// The GPU's own errors (a bad address of the caller's, say) are sticky: waiting would be in vain.
void Engine::check_stream() {
  cudaError_t const error = cudaStreamQuery(stream_.get());
  if (error == cudaSuccess || error == cudaErrorNotReady) return;
  signals_.fail(SystemError(fmt::format("rank {}: the GPU reports: {}", heap_->rank(), cudaGetErrorString(error)),
                            {.rank = heap_->rank()}));
}

void Engine::await(std::function<bool()> const& told) {
  constexpr int turns_between_looks = 1 << 14;
  // Kernels have deadlines of their own; some blocks wait for what another waits for, twice as long.
  Deadline const deadline(2 * options_.wait.timeout + std::chrono::seconds{5});
  for (int turn = 1; !told(); ++turn) {
    if (turn % 64 == 0) std::this_thread::yield();  // ranks may outnumber cores
    if (turn % turns_between_looks != 0) continue;
    check_stream();
    if (deadline.expired()) {
      signals_.fail(Timeout(fmt::format("rank {}: the GPU did not answer in time", heap_->rank()),
                            {.rank = heap_->rank(), .phase = "gpu"}));
    }
  }
}

// Nothing runs yet that could tell peers, and none waits.
void Engine::refuse_in_capture(std::optional<Refusal> const& refusal) const {
  if (capturing_ && refusal) throw_error(refusal->code, refusal->text, {.rank = heap_->rank(), .phase = "capture"});
}

void Engine::await_ticket() {
  await([this] { return mailbox_.ticket().ticket >= ticket_; });
  if (mailbox_.ticket().failed) await([this] { return mailbox_.troubled(); });
}

void Engine::await_answers() {
  await([this] { return mailbox_.answered().ticket >= ticket_; });
  if (mailbox_.answered().failed) await([this] { return mailbox_.troubled(); });
}

// After a mismatch, with no kernel running: the next call starts clean.
void Engine::reset_device() {
  auto* const state = heap_->control(heap_->rank()) + peers_.control.state;
  std::size_t const bytes = sizeof(std::uint32_t) * 3;
  check_cuda(cudaMemsetAsync(state + offsetof(DeviceState, failed), 0, bytes, stream_.get()),
             "resetting the engine");
  check_cuda(cudaStreamSynchronize(stream_.get()), "resetting the engine");
  mailbox_.clear_trouble();
}

// Kernels only saw that ranks differ. On the host they find out how, and all throw the same.
void Engine::explain(Cause const& cause) {
  check_cuda(cudaStreamSynchronize(stream_.get()), "ending a refused call");
  reset_device();
  open_call(link(), {.epoch = ++host_epoch_, .phase = cause.phase, .terms = cause.terms, .refusal = cause.refusal});
  signals_.fail(SystemError(fmt::format("rank {}: kernels saw calls that differ, and hosts none", heap_->rank()),
                            {.rank = heap_->rank(), .phase = cause.phase}));
}

// Throws if the call has failed.
void Engine::settle(Cause const& cause) {
  if (!mailbox_.troubled()) return;
  if (mailbox_.get().trouble.kind == TroubleKind::mismatch) explain(cause);
  raise_trouble();
}

}  // namespace switchyard::cuda
