// Membership of a rank in a job: the store, and one Unix socket to every other rank, over which
// descriptors are handed and whose closing tells that a peer is gone.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/unique_fd.hpp"
#include "bootstrap/store.hpp"
#include "layout/topology.hpp"

namespace switchyard {

class PeerLinks;

class Node {
 public:
  // Collective over all ranks of the job.
  Node(std::shared_ptr<Store> store, int rank, int size, std::chrono::milliseconds timeout);
  ~Node();
  Node(Node const&) = delete;
  Node& operator=(Node const&) = delete;

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return size_; }
  [[nodiscard]] std::chrono::milliseconds timeout() const noexcept { return timeout_; }

  // Collective, in the same order on every rank. Throw Timeout (naming the rank) or PeerLost.
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine);
  void barrier();
  // Hands `fd` to every other rank and returns theirs by rank; the own slot holds a duplicate of `fd`.
  std::vector<UniqueFd> exchange_fd(int fd);

  // True once the peer's process has ended or it has left the job. Never true for the own rank.
  [[nodiscard]] bool is_lost(int peer) const noexcept;

 private:
  std::shared_ptr<Store> store_;
  int rank_;
  int size_;
  std::chrono::milliseconds timeout_;
  std::uint64_t sequence_ = 0;
  std::unique_ptr<PeerLinks> links_;
};

}  // namespace switchyard
