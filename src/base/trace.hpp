// Recording spans; see switchyard/trace.hpp.
#pragma once

#include "switchyard/trace.hpp"

namespace switchyard {

[[nodiscard]] bool trace_enabled() noexcept;

// Records the time from construction to destruction. `name` must outlive the scope (a literal).
class TraceScope {
 public:
  TraceScope(char const* name, int rank, int worker = 0) noexcept;
  ~TraceScope();
  TraceScope(TraceScope const&) = delete;
  TraceScope& operator=(TraceScope const&) = delete;

 private:
  char const* name_;
  int rank_;
  int worker_;
  std::int64_t begin_ns_;  // 0: not recording
};

}  // namespace switchyard
