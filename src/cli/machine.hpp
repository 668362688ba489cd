// Facts about the machine, from /proc and /sys.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace switchyard::cli {

struct Machine {
  std::string cpu_model;
  int cores = 0;  // that this process may use
  std::int64_t memory_bytes = 0;
};
Machine describe_machine();
nlohmann::ordered_json to_json(Machine const& machine);

// The same for all processes of this machine, until it is started again.
std::string machine_id();

// Bytes that this process may still take: MemAvailable, or what its control groups leave, whichever is less.
std::int64_t available_memory();

// Memory of this process. A page that n processes map counts 1/n in `proportional`.
struct ProcessMemory {
  std::int64_t proportional = 0;   // Pss of /proc/self/smaps_rollup
  std::int64_t resident_peak = 0;  // VmHWM: every mapped page counts in full
};
ProcessMemory process_memory();

// What this process has open.
struct OpenDescriptors {
  int all = 0;
  int connections = 0;  // of these, those over a network
};
OpenDescriptors open_descriptors();

// The first line of a file without its line end; empty when it cannot be read.
std::string first_line(std::string const& path);

}  // namespace switchyard::cli
