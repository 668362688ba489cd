// What the low-latency mode needs of a port between nodes.
#pragma once

#include "layout/slots.hpp"
#include "layout/topology.hpp"
#include "scale_out/port_sizes.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard {

// The same on all ranks of a job.
scale_out::PortSizes slot_port_sizes(LowLatencyOptions const& options, SlotSizes const& sizes,
                                     Topology const& topology);

}  // namespace switchyard
