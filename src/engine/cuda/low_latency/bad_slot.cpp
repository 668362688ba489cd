#include "engine/cuda/low_latency/bad_slot.hpp"

#include "base/check.hpp"

namespace switchyard::cuda {

void throw_bad_slot(std::int64_t token, std::int64_t slot, SlotSizes const& sizes) {
  throw InvalidArgument(fmt::format(
      "topk_idx[{}, {}] of an earlier call: expected -1 or 0..{}, and at most max_tokens = {} rows for an "
      "expert, of which an id that repeats within a token is one each; the slot counted as not used",
      token, slot, sizes.num_experts - 1, sizes.max_tokens));
}

}  // namespace switchyard::cuda
