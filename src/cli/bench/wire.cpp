#include "cli/bench/wire.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace switchyard::cli {

namespace {

using Counts = std::array<std::uint64_t, num_write_sizes>;

// Adds what has come in between to sums over all calls.
void add(Counts const& before, Counts const& after, std::vector<double>& sums) {
  sums.resize(num_write_sizes);
  for (std::size_t size = 0; size < num_write_sizes; ++size)
    sums[size] += static_cast<double>(after[size] - before[size]);
}

}  // namespace

void note_wire(Part part, WireCount const& before, WireCount const& after, Samples& samples) {
  if (after.writes == 0) return;
  auto const note = [&](Part what, std::uint64_t count) {
    samples.of(Clock::none, what).push_back(static_cast<double>(count));
  };
  switch (part) {
    case Part::dispatch: return note(Part::wire_dispatch, after.bytes - before.bytes);
    case Part::combine: return note(Part::wire_combine, after.bytes - before.bytes);
    case Part::both:
      note(Part::wire_writes, after.writes - before.writes);
      add(before.writes_by_size, after.writes_by_size, samples.of(Clock::none, Part::wire_sizes));
      return add(before.bytes_by_size, after.bytes_by_size, samples.of(Clock::none, Part::wire_volumes));
    default: return;
  }
}

}  // namespace switchyard::cli
