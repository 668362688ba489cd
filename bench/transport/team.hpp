// The processes of one side, each with a link of its own: they start together, and their times are put together.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "cli/bench/shared_barrier.hpp"

namespace transport_rate {

class Team {
 public:
  // Before fork, in memory that children inherit.
  explicit Team(int size);

  // In the processes: who this one is, from 0.
  void be(int member) { member_ = member; }
  [[nodiscard]] int member() const { return member_; }
  [[nodiscard]] int size() const { return static_cast<int>(seconds_.size()); }

  // Waits for the others, and returns the moment when the last one came (CLOCK_MONOTONIC, ns).
  std::int64_t align();
  // The longest that any of them gives.
  double slowest(double seconds);
  // What all give together.
  double sum(double seconds);
  // Nobody waits for that one any more.
  void abandon(int member) noexcept { barrier_->abandon(member); }

 private:
  template <typename Fold>
  double fold(double seconds, Fold const& of_all);

  struct Unmap {
    std::size_t bytes;
    void operator()(double* seconds) const noexcept;
  };

  switchyard::cli::SharedBarrier::Owner barrier_;
  std::unique_ptr<double, Unmap> memory_;
  std::span<double> seconds_;
  int member_ = 0;
};

// Runs `body` in as many children as the team has members, and waits for them. False when one has failed: the
// others learn of it and end, too. Call it before any thread exists.
bool run_team(Team& team, std::function<void(int member)> const& body);

}  // namespace transport_rate
