// What a dispatch would send to whom, of ids in host memory.
#pragma once

#include "switchyard/buffer.hpp"

namespace switchyard {

// Arguments arrive checked; throws InvalidArgument for an id out of range.
Layout host_layout(ConstTensorView topk_idx, int num_experts, int num_ranks);

}  // namespace switchyard
