// What a dispatch by ids in host memory would send to whom.
#pragma once

#include "layout/topology.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

// Arguments must have been checked. Throws InvalidArgument for an id out of range.
Layout host_layout(ConstTensorView topk_idx, int num_experts, int num_ranks);
// The same in a job with these nodes.
Layout host_layout(ConstTensorView topk_idx, int num_experts, Topology const& nodes);

}  // namespace switchyard
