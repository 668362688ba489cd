// The sending side of a dispatch, from ids in host memory.
#pragma once

#include "call/throughput.hpp"
#include "layout/topology.hpp"

namespace switchyard {

// Fills in where the tokens of a dispatch go. What `args` says of routing lies in host memory. Throws
// InvalidArgument for an id out of range.
void route(DispatchArgs const& args, BufferInfo const& buffer, Topology const& topology, detail::Routing& routing);

}  // namespace switchyard
