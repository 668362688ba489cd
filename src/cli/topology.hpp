// The machine's topology as hwloc sees it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::cli {

struct Cache {
  std::string name;  // "L2"
  std::int64_t bytes = 0;
  int count = 0;
};

struct Topology {
  int packages = 0;
  int cores = 0;
  int processing_units = 0;
  int numa_nodes = 0;
  std::vector<Cache> caches;  // from the cores outwards
};

Topology read_topology();

}  // namespace switchyard::cli
