// Between kernels, their host and the peers: tells waiting kernels what the host learns, and makes what kernels
// report an error that all ranks throw.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "control/signals.hpp"
#include "engine/cuda/host/args.hpp"
#include "engine/cuda/host/host_mailbox.hpp"
#include "engine/cuda/host/watchdog.hpp"

namespace switchyard::cuda {

class Lookout {
 public:
  Lookout(std::shared_ptr<SymmetricHeap> host_heap, std::shared_ptr<Node> node, WaitPolicy wait,
          int max_local_experts);
  ~Lookout();
  Lookout(Lookout const&) = delete;
  Lookout& operator=(Lookout const&) = delete;

  // From here on, and until stop(), a thread looks after kernels. It never calls the driver.
  void watch();
  void stop() { watchdog_.reset(); }
  [[nodiscard]] bool watches() const noexcept { return watchdog_ != nullptr; }

  // Throws what kernels or peers have reported.
  void check_usable();
  [[nodiscard]] Waiting waiting() const;
  [[nodiscard]] Signals& signals() noexcept { return signals_; }
  [[nodiscard]] HostMailbox& mailbox() noexcept { return mailbox_; }

 private:
  void look();
  [[noreturn]] void raise_trouble();
  [[nodiscard]] Error error_of_trouble() const;

  std::shared_ptr<Node> node_;
  int rank_;
  WaitPolicy wait_;
  Signals signals_;
  HostMailbox mailbox_;
  std::mutex trouble_mutex_;
  std::unique_ptr<Watchdog> watchdog_;  // last: looks at all of the above
};

}  // namespace switchyard::cuda
