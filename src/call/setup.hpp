// What the options of a buffer and the settings of the environment come to on this rank; for both modes.
#pragma once

#include "control/signals.hpp"
#include "job/job.hpp"
#include "node/rank_group.hpp"
#include "plan/buffer_plan.hpp"
#include "plan/ring_plan.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard {

// Throws InvalidArgument, which names the option.
void check_options(BufferOptions const& options, int num_ranks);

struct BufferSetup {
  BufferPlan plan;
  RingPlan rings;  // of a job of several nodes
  WaitPolicy wait;
};

// Collective: checks and plans. When one rank must refuse, all throw its error. `rows`: where the rows of calls
// lie.
BufferSetup agree_on_setup(Job& job, BufferOptions const& options, Device rows = Device::cpu);
// Collective: what bounds heaps in host memory, the same on all ranks.
HostBounds agree_on_host_bounds(RankGroup& ranks);
// The same for a heap in host memory: it becomes no larger than what every rank may map of all heaps of its node.
BufferSetup agree_on_host_setup(Job& job, BufferOptions const& options);

}  // namespace switchyard
