// What the options of a buffer and the settings of the environment come to on this rank; for both modes.
#pragma once

#include "control/signals.hpp"
#include "node/rank_group.hpp"
#include "plan/buffer_plan.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

// Throws InvalidArgument, which names the option.
void check_options(BufferOptions const& options, int num_ranks);

struct BufferSetup {
  BufferPlan plan;
  WaitPolicy wait;
};

// Collective: checks and plans. When one rank must refuse, all throw its error.
BufferSetup agree_on_setup(RankGroup& ranks, BufferOptions const& options);
// Collective: what bounds heaps in host memory, the same on all ranks.
HostBounds agree_on_host_bounds(RankGroup& ranks);
// The same for a heap in host memory: it becomes no larger than what every rank may map of all ranks' heaps.
BufferSetup agree_on_host_setup(RankGroup& ranks, BufferOptions const& options);

}  // namespace switchyard
