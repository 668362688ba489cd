// A cluster that a file describes. docs/plan.md says which keys there are.
#pragma once

#include <optional>
#include <string>

#include "cli/plan/calibration_file.hpp"
#include "plan/simulator/machine.hpp"

namespace switchyard::cli {

struct Cluster {
  simulator::Machine machine{};
  std::optional<Calibration> calibration{};  // where calls of Switchyard were timed on it
};

// JSON or YAML, by the end of the file's name. Throws InvalidArgument, one line that names the file, the key and
// what would be right.
Cluster read_cluster(std::string const& path);

}  // namespace switchyard::cli
