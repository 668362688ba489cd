// Adds up what the calls of a buffer count, for whoever asks while others run.
#pragma once

#include <mutex>
#include <optional>

#include "switchyard/measure.hpp"

namespace switchyard {

class CallCounter {
 public:
  CallCounter(int num_ranks, int local_experts) : sums_(zeros(num_ranks, local_experts)) {}

  // Any thread.
  void set_on(bool on);
  [[nodiscard]] CallCounts sums() const;
  // Zeros for a call to fill in; nothing when counting is off. A call that fails adds nothing.
  [[nodiscard]] std::optional<CallCounts> begin() const;
  void add(CallCounts const& call);

 private:
  [[nodiscard]] static CallCounts zeros(int num_ranks, int local_experts);

  mutable std::mutex mutex_;
  bool on_ = false;
  CallCounts sums_;
};

}  // namespace switchyard
