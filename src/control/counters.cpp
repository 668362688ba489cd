#include "control/counters.hpp"

#include <algorithm>
#include <cstring>

#include "base/check.hpp"

namespace switchyard {

Counters largest_of_all(Node& node, Counters const& mine) {
  Counters largest = mine;
  for (auto const& bytes : node.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    require(bytes.size() == sizeof(Counters), "counters: expected {} bytes, seen {}", sizeof(Counters),
            bytes.size());
    Counters theirs;
    std::memcpy(&theirs, bytes.data(), sizeof theirs);
    largest.epoch = std::max(largest.epoch, theirs.epoch);
    largest.host_epoch = std::max(largest.host_epoch, theirs.host_epoch);
    largest.calls = std::max(largest.calls, theirs.calls);
    largest.gates = std::max(largest.gates, theirs.gates);
  }
  return largest;
}

}  // namespace switchyard
