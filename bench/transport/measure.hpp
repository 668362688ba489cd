// Rates and times of one link. Both processes call the same functions in the same order.
#pragma once

#include <cstddef>

#include "link.hpp"

namespace transport_rate {

// Who writes.
enum class Ways : unsigned char { one, both };

struct Load {
  std::size_t bytes = 0;   // of a write
  std::size_t window = 0;  // slots: writes under way at most, each until the receiver gives a credit for it
  std::size_t writes = 0;
};

// Gigabytes (1e9) a second that one process sends, from its first write until it knows that all have arrived. With
// Ways::one the second process writes nothing, and returns 0.
double rate(Link& link, Load const& load, Ways ways, bool first);

// Microseconds from a write until its bytes are known at the other side: half of a round trip, the median of
// `trips`.
double half_round_trip(Link& link, std::size_t bytes, std::size_t trips, bool first);

}  // namespace transport_rate
