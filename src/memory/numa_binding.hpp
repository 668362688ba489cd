// Keeps a rank's memory near the cores that it runs on.
#pragma once

#include <cstddef>

namespace switchyard {

// Binds pages that are not taken yet to the NUMA nodes of the calling thread's cores. Returns false when the
// machine has only one such node, or the kernel declines; memory then goes where it is first touched.
bool bind_to_local_numa_node(void* data, std::size_t bytes);

}  // namespace switchyard
