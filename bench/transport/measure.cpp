#include "measure.hpp"

#include <algorithm>
#include <vector>

#include "base/deadline.hpp"

namespace transport_rate {

namespace {

double seconds_since(std::int64_t start_ns) {
  return static_cast<double>(switchyard::monotonic_ns() - start_ns) / 1e9;
}

// Nobody starts before both are ready.
void meet(Link& link) {
  link.write(0, 0, 0);
  link.await_arrivals(1);
  link.wait_sent(link.posted());
}

void write_all(Link& link, Load const& load) {
  std::size_t const before = link.posted();
  std::size_t slot = 0;
  for (std::size_t i = 0; i < load.writes; ++i) {
    if (i >= load.window) link.wait_sent(before + i - load.window + 1);
    link.write(slot * load.bytes, load.bytes, static_cast<std::uint32_t>(i));
    slot = slot + 1 < load.window ? slot + 1 : 0;
  }
}

}  // namespace

// Each tells the other when all its writes have arrived, by a write without bytes.
double rate(Link& link, Load const& load, Ways ways, bool first) {
  bool const writes = first || ways == Ways::both;
  bool const receives = !first || ways == Ways::both;
  meet(link);
  std::int64_t const start = switchyard::monotonic_ns();
  if (writes) write_all(link, load);
  if (receives) {
    link.await_arrivals(load.writes);
    link.write(0, 0, 1);
  }
  if (writes) link.await_arrivals(1);
  double const seconds = seconds_since(start);
  link.wait_sent(link.posted());
  return writes ? static_cast<double>(load.writes * load.bytes) / seconds / 1e9 : 0;
}

double half_round_trip(Link& link, std::size_t bytes, std::size_t trips, bool first) {
  meet(link);
  std::vector<double> times(trips);
  for (std::size_t i = 0; i < trips; ++i) {
    std::int64_t const start = switchyard::monotonic_ns();
    if (first) link.write(0, bytes, 2);
    link.await_arrivals(1);
    if (!first) link.write(0, bytes, 2);
    times[i] = seconds_since(start) * 1e6 / 2;
  }
  link.wait_sent(link.posted());
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(trips / 2));
  return times[trips / 2];
}

}  // namespace transport_rate
