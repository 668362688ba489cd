// The first round of every call: all ranks tell one another what they were asked to do, and refuse together
// when one of them must refuse or when they were not asked the same.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "base/refusal.hpp"
#include "control/control_area.hpp"
#include "control/signals.hpp"

namespace switchyard {

using Facts = std::array<std::int64_t, num_facts>;

inline std::int64_t& fact(Facts& facts, Fact name) {
  return facts[static_cast<std::size_t>(name)];
}

struct Opening {
  std::uint64_t epoch = 0;
  char const* phase = "";
  Facts facts{};
  std::optional<Refusal> refusal{};  // why this rank cannot take part; every rank throws it
  std::int64_t x_offset = -1;
  std::int64_t weights_offset = -1;
  std::int64_t row_weights_offset = -1;
};

struct Link {
  ControlArea const& control;
  Signals& signals;
  int rank;
  int num_ranks;
};

// Collective. Counts for a peer, if any, must lie in its control block before. Throws the same error on every
// rank when one refuses or facts differ; all ranks are then past the call and the buffer stays usable.
void open_call(Link const& link, Opening const& opening);

// Tells every peer, and waits for every peer to tell, that it has read all it wanted for this epoch.
void close_call(Link const& link, std::uint64_t epoch, char const* phase);

}  // namespace switchyard
