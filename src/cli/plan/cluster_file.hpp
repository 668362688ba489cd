// A cluster that a file describes. docs/plan.md says which keys there are.
#pragma once

#include <string>

#include "plan/simulator/machine.hpp"

namespace switchyard::cli {

// JSON or YAML, by the end of the file's name. Throws InvalidArgument, one line that names the file, the key and
// what would be right.
simulator::Machine read_cluster(std::string const& path);

}  // namespace switchyard::cli
