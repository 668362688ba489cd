// Records what each worker did when, as spans for Chrome or Perfetto.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct TraceSpan {
  std::string name;
  int worker = 0;
  std::int64_t begin_ns = 0;  // CLOCK_MONOTONIC, comparable between the processes of a machine
  std::int64_t end_ns = 0;
};

// Starts or stops recording in this process. It is off by default, and then costs nearly nothing.
void set_trace_enabled(bool enabled) noexcept;
// Returns what was recorded for `rank` since the last call of this function.
std::vector<TraceSpan> take_trace(int rank);

}  // namespace switchyard
