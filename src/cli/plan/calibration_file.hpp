// What `switchyard bench --calibrate` writes: a cluster file that describes the machine by timed calls.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "plan/simulator/calibration.hpp"

namespace switchyard::cli {

struct CalibratedMode {
  std::int64_t least_tokens = 0;  // a rank, that were timed
  std::int64_t most_tokens = 0;
  simulator::ModeFit fit{};
};

struct Calibration {
  std::string date;  // what was run, for people
  std::string version;
  std::string engine;
  int ranks = 0;
  simulator::SharedNode shared{};
  std::int64_t row_bytes = 0;  // of a dispatch, with its scales
  CalibratedMode throughput{};
  CalibratedMode latency{};

  // Switchyard's calls, as they were on that machine.
  [[nodiscard]] simulator::Library library() const;
};

// The key `calibration` of a cluster file. Throws InvalidArgument, which names the key and what would be right.
Calibration read_calibration(nlohmann::ordered_json const& section);

// What the file says besides.
struct CalibratedMachine {
  std::string processor;    // for people
  std::string problem;      // the same
  double memory_bytes = 0;  // of a rank
};
// The whole file, in YAML, with comments.
std::string calibration_yaml(Calibration const& calibration, CalibratedMachine const& machine);

}  // namespace switchyard::cli
