#include "cli/bench/wire.hpp"

#include <cstdint>
#include <numeric>
#include <span>

namespace switchyard::cli {

namespace {

// Writes of 2^17 bytes, 128 KiB, and more are large; see WireCount::bytes_by_size.
constexpr std::size_t first_large_size = 17;

std::uint64_t large_bytes(WireCount const& count) {
  auto const large = std::span(count.bytes_by_size).subspan(first_large_size);
  return std::accumulate(large.begin(), large.end(), std::uint64_t{0});
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
      return note(Part::wire_large, large_bytes(after) - large_bytes(before));
    default: return;
  }
}

}  // namespace switchyard::cli
