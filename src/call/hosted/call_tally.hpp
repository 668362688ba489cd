// What one call counts, if the buffer counts.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/deadline.hpp"
#include "call/call_counter.hpp"
#include "layout/receive_block.hpp"
#include "layout/routing.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

class CallTally {
 public:
  explicit CallTally(CallCounter& counter) : counter_(counter), counts_(counter.begin()) {}

  // Where waits are added up, by rank of the job; empty when nobody counts.
  [[nodiscard]] std::span<std::int64_t> wait_ns(std::vector<std::int64_t> CallCounts::*of) {
    return counts_ ? std::span((*counts_).*of) : std::span<std::int64_t>();
  }

  // To be called once, by a call that has ended well.
  void end_dispatch(detail::Routing const& routing, ReceiveShape const& shape);
  void end_combine(detail::Routing const& routing, CombineArgs const& args);

 private:
  CallCounter& counter_;
  std::optional<CallCounts> counts_;
  std::int64_t begin_ns_ = counts_ ? monotonic_ns() : 0;
};

}  // namespace switchyard
