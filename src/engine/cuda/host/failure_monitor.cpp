#include "engine/cuda/host/failure_monitor.hpp"

#include <pthread.h>

#include <chrono>
#include <condition_variable>
#include <utility>

#include "base/check.hpp"
#include "control/signal_delay.hpp"
#include "engine/cuda/host/trouble.hpp"
#include "layout/topology.hpp"

namespace switchyard::cuda {

namespace {

constexpr std::chrono::milliseconds interval{10};

}  // namespace

FailureMonitor::FailureMonitor(EngineResources const& resources, int max_local_experts,
                               MismatchPolicy const& mismatch)
    : node_(resources.node),
      wait_(resources.wait),
      mismatch_(mismatch),
      signals_(resources.host_heap, resources.node, resources.wait),
      mailbox_(max_local_experts) {}

void FailureMonitor::start() {
  thread_ = std::jthread([this](std::stop_token const& stop) {
    std::unique_lock lock(sleep_mutex_);
    while (!stopped_.wait_for(lock, stop, interval, [&stop] { return stop.stop_requested(); })) poll();
  });
  pthread_setname_np(thread_.native_handle(), "sy-monitor");
}

Waiting FailureMonitor::waiting(std::uint64_t call) const {
  auto const timeout = std::chrono::duration_cast<std::chrono::nanoseconds>(wait_.timeout);
  return {.mailbox = mailbox_.device(),
          .timeout_ns = static_cast<std::uint64_t>(timeout.count()),
          .call = call,
          .delays = signal_delays()};
}

// The thread calls this at every interval. It must not throw.
void FailureMonitor::poll() {
  LocalRankMask lost = 0;
  for (int peer = 0; peer < node_->size(); ++peer) {
    if (node_->is_lost(peer) || signals_.has_left(peer)) lost |= mask_of(peer);
  }
  mailbox_.set_lost(lost);
  try {
    signals_.check_usable();
    if (!has_trouble_to_report()) return;
    signals_.fail(error_of_trouble());
  } catch (Error const&) {
    mailbox_.set_aborted();
  }
}

bool FailureMonitor::has_trouble_to_report() const noexcept {
  // Read before the trouble: what the hosts of calls up to this one settle they have settled, and cleared, before
  // they went on to it. Pairs with the release store in report_mismatch_of().
  std::uint64_t const alone = latest_alone_.load(std::memory_order_acquire);
  if (!mailbox_.has_trouble()) return false;
  Trouble const& trouble = mailbox_.get().trouble;
  return trouble.kind != TroubleKind::mismatch || !mismatch_.calls_settle_it || trouble.call <= alone;
}

Error FailureMonitor::error_of_trouble() const {
  Trouble const& trouble = mailbox_.get().trouble;
  if (trouble.kind == TroubleKind::mismatch) return mismatch_.error(trouble, node_->rank());
  return error_of(trouble, node_->rank(), wait_.timeout.count());
}

void FailureMonitor::raise_trouble() {
  signals_.check_usable();  // what another rank has reported says more
  signals_.fail(error_of_trouble());
}

void FailureMonitor::check_usable() {
  signals_.check_usable();
  if (!has_trouble_to_report()) return;
  std::lock_guard const lock(mutex_);
  if (has_trouble_to_report()) raise_trouble();
}

void FailureMonitor::check_usable(Generation const& generation) {
  check_usable();
  std::lock_guard const lock(mutex_);  // pairs with end_generation(), which comes before the failure is forgotten
  if (!generation.failure) return;
  Error const& failure = *generation.failure;
  throw_error(failure.code(), failure.what(),
              {.rank = failure.rank(), .peer = failure.peer(), .phase = failure.phase()});
}

std::optional<Error> FailureMonitor::end_generation() {
  std::optional<Error> failure;
  try {
    check_usable();
  } catch (Error const& error) {
    failure = error;
  }
  std::lock_guard const lock(mutex_);
  generation_->failure = failure;
  mailbox_.clear_trouble();
  return failure;
}

void FailureMonitor::begin_generation() {
  mailbox_.clear_aborted();
  signals_.reset();
  generation_ = std::make_shared<Generation>();
  start();
}

}  // namespace switchyard::cuda
