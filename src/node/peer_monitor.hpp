// Watches the links, from a thread of its own, for peers that leave or die.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/unique_fd.hpp"
#include "bootstrap/socket.hpp"

namespace switchyard {

class PeerMonitor {
 public:
  // Watches the sockets (by rank; an empty slot is not watched), which must outlive it.
  explicit PeerMonitor(std::span<UniqueFd const> links);
  ~PeerMonitor();
  PeerMonitor(PeerMonitor const&) = delete;
  PeerMonitor& operator=(PeerMonitor const&) = delete;

  [[nodiscard]] bool is_lost(int peer) const noexcept {
    // Acquire: pairs with the release store in mark_lost(). A thread that sees the loss also sees what the
    // monitor's thread saw of the peer. So when it then reads once more what the peer has published, it finds
    // everything that the peer managed to publish.
    return lost_[static_cast<std::size_t>(peer)].load(std::memory_order_acquire);
  }
  void mark_lost(int peer) noexcept {
    // Release: pairs with the acquire load in is_lost().
    lost_[static_cast<std::size_t>(peer)].store(true, std::memory_order_release);
  }

 private:
  void run() noexcept;
  void note_losses() noexcept;

  std::size_t size_;
  std::unique_ptr<std::atomic<bool>[]> lost_;
  Wakeup stop_;
  // The processes of the peers, where the kernel allows us to watch them. A socket stays open when a child of the
  // peer (a data loader, say) has inherited it, but the end of the process itself cannot be missed.
  std::vector<UniqueFd> processes_;
  // First stop_, then the links by rank, then the processes by rank.
  std::vector<pollfd> polled_;
  std::thread thread_;
};

}  // namespace switchyard
