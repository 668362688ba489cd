// What calls count, and what ranks must have alike before a call.
#pragma once

#include <cstdint>

#include "node/rank_group.hpp"

namespace switchyard {

// No flag that a rank has raised is above its counters.
struct Counters {
  std::uint64_t epoch = 0;
  // CUDA engine; see its Engine.
  std::uint64_t host_epoch = 0;
  std::uint64_t calls = 0;
  std::uint64_t gates = 0;
};

// Collective. The largest of all ranks, one by one: whoever counts on from there raises flags that are above all
// that were ever raised, on any rank.
Counters largest_of_all(RankGroup& ranks, Counters const& mine);

}  // namespace switchyard
