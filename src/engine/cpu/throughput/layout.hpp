// What a dispatch by ids in host memory would send to whom.
#pragma once

#include "switchyard/buffer.hpp"

namespace switchyard {

// Arguments must have been checked. Throws InvalidArgument for an id out of range.
Layout host_layout(ConstTensorView topk_idx, int num_experts, int num_ranks);

}  // namespace switchyard
