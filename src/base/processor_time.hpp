// For benchmarks: what a process takes of the processors.
#pragma once

#include <time.h>

#include <cstdint>

namespace switchyard {

// Of all threads of this process so far, in nanoseconds; 0 where the system does not count it.
inline std::int64_t processor_ns() noexcept {
  timespec used{};
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) != 0) return 0;
  return std::int64_t{used.tv_sec} * 1'000'000'000 + used.tv_nsec;
}

}  // namespace switchyard
