// Keeping a rank's memory near the cores that it runs on.
#pragma once

#include <cstddef>

namespace switchyard {

// Binds pages that are not yet taken to the NUMA node(s) of the calling thread's cores. False when the
// machine has one node only or the kernel declines; memory then goes where it is first touched.
bool bind_to_local_numa_node(void* data, std::size_t bytes);

}  // namespace switchyard
