// What an engine counts from call to call. Ranks must agree on it before a call.
#pragma once

#include <cstdint>

#include "node/rank_group.hpp"

namespace switchyard {

// No flag that a rank has raised is above its counters.
struct Counters {
  std::uint64_t epoch = 0;
  // Of the CUDA engine in throughput mode; see its Engine.
  std::uint64_t host_epoch = 0;
  std::uint64_t calls = 0;
  std::uint64_t gates = 0;
};

// Collective. The largest values of all ranks: an engine that counts on from there raises flags above all that were
// ever raised, on any rank.
Counters largest_of_all(RankGroup& ranks, Counters const& mine);

}  // namespace switchyard
