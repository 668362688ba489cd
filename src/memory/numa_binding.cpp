#include "memory/numa_binding.hpp"

#include <hwloc.h>

#include <memory>

namespace switchyard {

namespace {

struct TopologyDeleter {
  void operator()(hwloc_topology* topology) const noexcept { hwloc_topology_destroy(topology); }
};
struct BitmapDeleter {
  void operator()(hwloc_bitmap_s* bitmap) const noexcept { hwloc_bitmap_free(bitmap); }
};

std::unique_ptr<hwloc_topology, TopologyDeleter> load_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return nullptr;
  std::unique_ptr<hwloc_topology, TopologyDeleter> topology(raw);
  if (hwloc_topology_load(raw) != 0) return nullptr;
  return topology;
}

}  // namespace

bool bind_to_local_numa_node(void* data, std::size_t bytes) {
  auto const topology = load_topology();
  if (!topology || hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_NUMANODE) < 2) return false;
  std::unique_ptr<hwloc_bitmap_s, BitmapDeleter> const cores(hwloc_bitmap_alloc());
  if (!cores || hwloc_get_cpubind(topology.get(), cores.get(), HWLOC_CPUBIND_THREAD) != 0) return false;
  return hwloc_set_area_membind(topology.get(), data, bytes, cores.get(), HWLOC_MEMBIND_BIND, 0) == 0;
}

}  // namespace switchyard
