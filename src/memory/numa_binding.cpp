#include "memory/numa_binding.hpp"

#include <hwloc.h>

#include <memory>
#include <mutex>

namespace switchyard {

namespace {

struct TopologyDeleter {
  void operator()(hwloc_topology* topology) const noexcept { hwloc_topology_destroy(topology); }
};
struct BitmapDeleter {
  void operator()(hwloc_bitmap_s* bitmap) const noexcept { hwloc_bitmap_free(bitmap); }
};

using MachineTopology = std::unique_ptr<hwloc_topology, TopologyDeleter>;

MachineTopology load_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return nullptr;
  MachineTopology topology(raw);
  if (hwloc_topology_load(raw) != 0) return nullptr;
  return topology;
}

// hwloc reads hundreds of files for it, and every segment asks: the process reads it once. One that could not be
// read is tried again.
hwloc_topology_t this_machine() {
  static std::mutex mutex;
  static MachineTopology topology;
  std::scoped_lock const lock(mutex);
  if (!topology) topology = load_topology();
  return topology.get();
}

}  // namespace

bool bind_to_local_numa_node(void* data, std::size_t bytes) {
  hwloc_topology_t const topology = this_machine();
  if (topology == nullptr || hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE) < 2) return false;
  std::unique_ptr<hwloc_bitmap_s, BitmapDeleter> const cores(hwloc_bitmap_alloc());
  if (!cores || hwloc_get_cpubind(topology, cores.get(), HWLOC_CPUBIND_THREAD) != 0) return false;
  return hwloc_set_area_membind(topology, data, bytes, cores.get(), HWLOC_MEMBIND_BIND, 0) == 0;
}

}  // namespace switchyard
