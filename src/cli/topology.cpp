#include "cli/topology.hpp"

#include <fmt/core.h>
#include <hwloc.h>

#include <algorithm>
#include <array>
#include <memory>

#include "switchyard/error.hpp"

namespace switchyard::cli {

namespace {

struct Destroy {
  void operator()(hwloc_topology* topology) const noexcept { hwloc_topology_destroy(topology); }
};
using Handle = std::unique_ptr<hwloc_topology, Destroy>;

Handle load() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) throw SystemError("hwloc: no topology");
  Handle topology(raw);
  if (hwloc_topology_load(raw) != 0) throw SystemError("hwloc: the topology cannot be read");
  return topology;
}

}  // namespace

Topology read_topology() {
  Handle const handle = load();
  auto const count = [&](hwloc_obj_type_t type) {
    return std::max(hwloc_get_nbobjs_by_type(handle.get(), type), 0);
  };
  Topology topology{.packages = count(HWLOC_OBJ_PACKAGE),
                    .cores = count(HWLOC_OBJ_CORE),
                    .processing_units = count(HWLOC_OBJ_PU),
                    .numa_nodes = count(HWLOC_OBJ_NUMANODE),
                    .caches = {}};
  constexpr std::array levels{HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L4CACHE};
  for (std::size_t level = 0; level < levels.size(); ++level) {
    hwloc_obj_t const first = hwloc_get_obj_by_type(handle.get(), levels[level], 0);
    if (first == nullptr) continue;
    auto const bytes = static_cast<std::int64_t>(first->attr->cache.size);
    topology.caches.push_back({fmt::format("L{}", level + 1), bytes, count(levels[level])});
  }
  return topology;
}

}  // namespace switchyard::cli
