// Between kernels, their host and the peers: a thread publishes to waiting kernels what the host learns, and turns
// what kernels report into an error that all ranks throw.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/cuda/host/engine_resources.hpp"
#include "engine/cuda/host/host_mailbox.hpp"

namespace switchyard::cuda {

// What becomes of a mismatch, which is what kernels report when ranks make different calls or one of them refuses.
struct MismatchPolicy {
  // True if the host of a call settles it with its peers: then the thread does not report it, but for calls whose
  // hosts do not wait.
  bool calls_settle_it;
  // The error of a mismatch that no call has settled.
  Error (*error)(Trouble const& trouble, int rank);
};

class FailureMonitor {
 public:
  // The calls between two resets. Events of these calls share it, and may outlive it.
  struct Generation {
    std::optional<Error> failure;  // how it ended; guarded by mutex_
  };

  FailureMonitor(EngineResources const& resources, int max_local_experts, MismatchPolicy const& mismatch);
  FailureMonitor(FailureMonitor const&) = delete;
  FailureMonitor& operator=(FailureMonitor const&) = delete;

  // Starts and ends the thread. It never calls the driver.
  void start();
  void stop() { thread_ = {}; }
  [[nodiscard]] bool is_running() const noexcept { return thread_.joinable(); }

  // Throws what kernels or peers have reported, but for a mismatch that the host of a call settles.
  void check_usable();
  // Throws what ended the generation as well, so that its events do not pass when a reset has forgotten the
  // failure.
  void check_usable(Generation const& generation);
  [[nodiscard]] std::shared_ptr<Generation const> generation() const noexcept { return generation_; }
  // For a reset, when no kernel runs and the thread has ended: reports for the last time what kernels have
  // reported, and clears it. Returns how the generation ended.
  std::optional<Error> end_generation();
  // For a reset: forgets failures, and starts a new generation together with the thread.
  void begin_generation();

  // For the kernels of a call. `call` goes into the trouble that they report.
  [[nodiscard]] Waiting waiting(std::uint64_t call = 0) const;
  // The host does not wait for this call, so nobody settles its mismatch: the thread reports it. Numbers rise from
  // call to call. To be called before the kernels are launched.
  void report_mismatch_of(std::uint64_t call) noexcept {
    latest_alone_.store(call, std::memory_order_release);  // pairs with the acquire load in poll()
  }
  [[nodiscard]] Signals& signals() noexcept { return signals_; }
  [[nodiscard]] HostMailbox& mailbox() noexcept { return mailbox_; }

 private:
  void poll();
  [[noreturn]] void raise_trouble();
  [[nodiscard]] bool has_trouble_to_report() const noexcept;
  [[nodiscard]] Error error_of_trouble() const;

  std::shared_ptr<Node> node_;
  WaitPolicy wait_;
  MismatchPolicy mismatch_;
  std::atomic<std::uint64_t> latest_alone_{0};  // the latest call that the host did not wait for
  Signals signals_;
  HostMailbox mailbox_;
  // Held while trouble becomes a failure that is reported to peers, so that no report of before a reset comes after
  // it.
  std::mutex mutex_;
  std::shared_ptr<Generation> generation_ = std::make_shared<Generation>();
  std::mutex sleep_mutex_;               // guards nothing: a condition variable wants one
  std::condition_variable_any stopped_;  // only the stop token notifies it
  std::jthread thread_;                  // the last member, because it uses all others
};

}  // namespace switchyard::cuda
