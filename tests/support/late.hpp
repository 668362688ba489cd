// One rank of a job is late: it makes its call when the others have given up, and all get a Timeout that names it.
#pragma once

#include <atomic>
#include <chrono>

#include "support/casualty.hpp"

namespace switchyard::test {

// For waits of all calls: those that are to fail take it, and no other should.
inline std::chrono::milliseconds late_timeout() {
  return std::chrono::milliseconds{by_scale(2000, 600)};
}

// Where one rank stands; all ranks have the same `late` and `round`.
class Lateness {
 public:
  // `gave_up` counts over all rounds.
  Lateness(std::atomic<int>& gave_up, Communicator const& communicator)
      : gave_up_(gave_up), rank_(communicator.rank()), others_(communicator.size() - 1) {}

  template <typename Call>
  void expect_timeout(int late, Call const& call) {
    ++rounds_;
    if (rank_ == late) check(wait_until([&] { return gave_up_ >= rounds_ * others_; }), "the others never gave up");
    auto const error = expect_throw<Timeout>("a call that one rank is late for", call);
    if (rank_ != late) ++gave_up_;
    check_equal(error.peer(), late, "peer of the error: ", error.what());
    check_names(error, {text("rank ", late)});
    (void)expect_throw<Timeout>("a call before the reset", call);
  }

  // So that nobody is blamed for leaving first; without expect_timeout() before it.
  void end_together(int ranks) {
    ++gave_up_;
    check(wait_until([&] { return gave_up_ >= ranks; }), "the others never ended");
  }

 private:
  std::atomic<int>& gave_up_;
  int rank_;
  int others_;
  int rounds_ = 0;
};

}  // namespace switchyard::test
