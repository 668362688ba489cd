#include "base/trace.hpp"

#include <atomic>
#include <map>
#include <mutex>
#include <utility>

#include "base/deadline.hpp"

namespace switchyard {

namespace {

// Relaxed everywhere: a switch, it orders nothing; spans are guarded by the mutex.
std::atomic<bool> enabled{false};

struct Recorder {
  std::mutex mutex;
  std::map<int, std::vector<TraceSpan>> spans_by_rank;
};

Recorder& recorder() {
  static Recorder instance;
  return instance;
}

}  // namespace

void set_trace_enabled(bool on) noexcept {
  enabled.store(on, std::memory_order_relaxed);
}

bool trace_enabled() noexcept {
  return enabled.load(std::memory_order_relaxed);
}

std::vector<TraceSpan> take_trace(int rank) {
  std::lock_guard const lock(recorder().mutex);
  return std::exchange(recorder().spans_by_rank[rank], {});
}

TraceScope::TraceScope(char const* name, int rank, int worker) noexcept
    : name_(name), rank_(rank), worker_(worker), begin_ns_(trace_enabled() ? monotonic_ns() : 0) {}

TraceScope::~TraceScope() {
  if (begin_ns_ == 0) return;
  std::int64_t const end_ns = monotonic_ns();
  try {
    std::lock_guard const lock(recorder().mutex);
    recorder().spans_by_rank[rank_].push_back({name_, worker_, begin_ns_, end_ns});
  } catch (...) {  // out of memory: a span is lost, the work is not
  }
}

}  // namespace switchyard
