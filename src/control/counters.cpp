#include "control/counters.hpp"

#include <algorithm>

#include "node/agreement.hpp"

namespace switchyard {

Counters largest_of_all(RankGroup& ranks, Counters const& mine) {
  Counters largest = mine;
  for (Counters const& theirs : gather(ranks, "counters", mine)) {
    largest.epoch = std::max(largest.epoch, theirs.epoch);
    largest.host_epoch = std::max(largest.host_epoch, theirs.host_epoch);
    largest.calls = std::max(largest.calls, theirs.calls);
    largest.gates = std::max(largest.gates, theirs.gates);
  }
  return largest;
}

}  // namespace switchyard
