#include "measure.hpp"

#include <algorithm>
#include <vector>

#include "base/deadline.hpp"
#include "base/processor_time.hpp"

namespace transport_rate {

namespace {

double seconds_since(std::int64_t start_ns) {
  return static_cast<double>(switchyard::monotonic_ns() - start_ns) / 1e9;
}

// Nobody starts before both are ready.
void meet(Link& link) {
  link.write(0, 0, Kind::word);
  link.await_arrivals(Kind::word, 1);
  link.wait_sent(link.posted());
}

// A slot is used again when its credit has come. Ends when all have come.
void write_all(Link& link, Load const& load) {
  std::size_t slot = 0;
  for (std::size_t i = 0; i < load.writes; ++i) {
    if (i >= load.window) link.await_arrivals(Kind::credit, 1);
    link.write(slot * load.bytes, load.bytes, Kind::data);
    slot = slot + 1 < load.window ? slot + 1 : 0;
  }
  link.await_arrivals(Kind::credit, std::min(load.window, load.writes));
}

}  // namespace

// The last credit says that all have arrived.
Rate rate(Link& link, Team& team, Load const& load, Ways ways, bool first) {
  bool const writes = first || ways == Ways::both;
  bool const receives = !first || ways == Ways::both;
  meet(link);
  std::int64_t const start = team.align();
  std::int64_t const cpu_start = switchyard::processor_ns();
  if (writes) write_all(link, load);
  double const mine = seconds_since(start);
  if (receives) link.await_arrivals(Kind::data, load.writes);
  double const cpu = team.sum(static_cast<double>(switchyard::processor_ns() - cpu_start) / 1e9);
  double const seconds = team.slowest(mine);
  meet(link);
  double const gigabytes = static_cast<double>(load.writes * load.bytes) * team.size() / 1e9;
  return {.gbps = gigabytes / seconds, .cpu_s_per_gb = cpu / gigabytes};
}

double half_round_trip(Link& link, std::size_t bytes, std::size_t trips, bool first) {
  meet(link);
  std::vector<double> times(trips);
  for (std::size_t i = 0; i < trips; ++i) {
    std::int64_t const start = switchyard::monotonic_ns();
    if (first) link.write(0, bytes, Kind::word);
    link.await_arrivals(Kind::word, 1);
    if (!first) link.write(0, bytes, Kind::word);
    times[i] = seconds_since(start) * 1e6 / 2;
  }
  link.wait_sent(link.posted());
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(trips / 2));
  return times[trips / 2];
}

}  // namespace transport_rate
