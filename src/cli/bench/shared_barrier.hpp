// A barrier in memory that forked ranks share: it releases them together within microseconds, and tells all of
// them the moment of the release.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

#include "layout/topology.hpp"

namespace switchyard::cli {

class SharedBarrier {
 public:
  struct Unmap {
    void operator()(SharedBarrier* barrier) const noexcept;
  };
  using Owner = std::unique_ptr<SharedBarrier, Unmap>;

  // In a mapping of its own that children inherit: call it before fork.
  static Owner create(int ranks);

  // As `rank`, waits for all ranks and returns the moment (CLOCK_MONOTONIC, ns) at which the last one came. Throws
  // Timeout, naming a rank that did not come, on all who wait; or PeerLost once abandon() was called.
  std::int64_t wait(int rank, std::chrono::milliseconds timeout);
  // Rank `lost` will not come any more: wakes all who wait.
  void abandon(int lost) noexcept;

 private:
  explicit SharedBarrier(std::uint32_t ranks) noexcept : ranks_(ranks) {}
  void throw_if_abandoned() const;
  [[nodiscard]] bool yield_until_released(std::uint32_t generation) const;
  // A rank that has not come to this round; -1 when all have.
  [[nodiscard]] int missing(std::uint32_t generation) const;

  std::uint32_t ranks_;
  std::atomic<std::uint32_t> arrived_{0};
  // Counts releases; the futex that waiters sleep on.
  std::atomic<std::uint32_t> generation_{0};
  std::atomic<std::int64_t> released_at_{0};
  std::atomic<int> lost_{-1};
  std::atomic<int> late_{-1};  // named by the first that gave up
  // The round that each rank has come to last, from 1.
  std::array<std::atomic<std::uint32_t>, max_node_ranks> rounds_{};
};

}  // namespace switchyard::cli
