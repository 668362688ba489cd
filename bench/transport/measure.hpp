// Rates and times of the links of a team. All processes of both sides call the same functions in the same order.
#pragma once

#include <cstddef>

#include "link.hpp"
#include "team.hpp"

namespace transport_rate {

// Who writes.
enum class Ways : unsigned char { one, both };

struct Load {
  std::size_t bytes = 0;   // of a write
  std::size_t window = 0;  // slots: writes under way at most, each until the receiver gives a credit for it
  std::size_t writes = 0;
};

// Of a side, all its links together.
struct Rate {
  double gbps = 0;          // gigabytes (1e9) a second that it sends
  double cpu_s_per_gb = 0;  // seconds of processors that it took for each gigabyte that it sent
};
// From the moment when all processes of this side are ready until the last one knows that all of its writes have
// arrived. With Ways::one the second side writes nothing, and its numbers mean nothing.
Rate rate(Link& link, Team& team, Load const& load, Ways ways, bool first);

// Microseconds from a write until its bytes are known at the other side: half of a round trip, the median of
// `trips`.
double half_round_trip(Link& link, std::size_t bytes, std::size_t trips, bool first);

}  // namespace transport_rate
