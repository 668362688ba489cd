#include "call/call_counter.hpp"

#include <algorithm>
#include <functional>
#include <vector>

#include "base/check.hpp"
#include "call/throughput_engine.hpp"

namespace switchyard {

namespace {

void add_to(std::vector<std::int64_t>& sums, std::vector<std::int64_t> const& more) {
  std::ranges::transform(sums, more, sums.begin(), std::plus{});
}

}  // namespace

CallCounts CallCounter::zeros(int num_ranks, int local_experts) {
  std::vector<std::int64_t> const by_rank(static_cast<std::size_t>(num_ranks), 0);
  auto const tokens = static_cast<std::size_t>(num_ranks) * static_cast<std::size_t>(local_experts);
  return {.dispatch_wait_ns = by_rank,
          .combine_wait_ns = by_rank,
          .dispatch_bytes = by_rank,
          .combine_bytes = by_rank,
          .tokens = std::vector<std::int64_t>(tokens, 0)};
}

void CallCounter::set_on(bool on) {
  std::lock_guard const lock(mutex_);
  on_ = on;
}

CallCounts CallCounter::sums() const {
  std::lock_guard const lock(mutex_);
  return sums_;
}

std::optional<CallCounts> CallCounter::begin() const {
  std::lock_guard const lock(mutex_);
  if (!on_) return std::nullopt;
  auto const ranks = sums_.dispatch_bytes.size();
  return zeros(static_cast<int>(ranks), static_cast<int>(sums_.tokens.size() / ranks));
}

void CallCounter::add(CallCounts const& call) {
  std::lock_guard const lock(mutex_);
  sums_.dispatches += call.dispatches;
  sums_.combines += call.combines;
  sums_.dispatch_ns += call.dispatch_ns;
  sums_.combine_ns += call.combine_ns;
  add_to(sums_.dispatch_wait_ns, call.dispatch_wait_ns);
  add_to(sums_.combine_wait_ns, call.combine_wait_ns);
  add_to(sums_.dispatch_bytes, call.dispatch_bytes);
  add_to(sums_.combine_bytes, call.combine_bytes);
  add_to(sums_.tokens, call.tokens);
}

namespace detail {

void ThroughputEngine::count_calls(bool on) {
  if (on)
    throw Unsupported(
        "count_calls: expected a buffer of the cpu engine, seen one of cuda, which does not count yet");
}

CallCounts ThroughputEngine::call_counts() const {
  throw Unsupported("call_counts: expected a buffer of the cpu engine, seen one of cuda, which does not count yet");
}

}  // namespace detail

}  // namespace switchyard
