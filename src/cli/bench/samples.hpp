// What a benchmark measures: numbers of each part, by each clock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "switchyard/measure.hpp"

namespace switchyard::cli {

enum class Part : std::uint8_t {
  nothing,  // what a measurement shows by itself
  dispatch,
  dispatch_send,
  dispatch_receive,
  combine,
  combine_send,
  combine_receive,
  both,            // a dispatch and a combine
  layout,          // get_layout
  empty_dispatch,  // calls of no tokens: what a call costs before any byte moves
  empty_combine,
  copy,         // for the copy ceiling: memcpy, or a copy inside the GPU
  stream_copy,  // the same with non-temporal stores
  pss,
  resident_peak,
  heap_peak,
  wire_dispatch,  // bytes that this rank has sent to other nodes in a call
  wire_combine,
  wire_writes,   // writes to other nodes in a dispatch and a combine
  wire_sizes,    // the same by WireCount's sizes: num_write_sizes sums over all iterations
  wire_volumes,  // and their bytes, as sums too
  descriptors,   // that this rank's process has open after its calls
  connections,   // of these, those over a network
};
inline constexpr std::array part_names{
    "nothing",         "dispatch",   "dispatch_send", "dispatch_receive", "combine",       "combine_send",
    "combine_receive", "both",       "layout",        "empty_dispatch",   "empty_combine", "copy",
    "stream_copy",     "pss",        "resident_peak", "heap_peak",        "wire_dispatch", "wire_combine",
    "wire_writes",     "wire_sizes", "wire_volumes",  "descriptors",      "connections"};
constexpr std::string_view name_of(Part part) noexcept {
  return part_names[static_cast<std::size_t>(part)];
}

enum class Clock : std::uint8_t {
  host,    // from the moment when all ranks were ready until a rank knows that its call is complete
  device,  // CUDA: around the call, all ranks released together by a gate
  graph,   // CUDA: the same within a graph, by the GPU's clock
  phases,  // CUDA: each phase of a call by the GPU's clock, in the order of phase_names()
  cpu,     // what this rank's process took of the processors, in all its threads
  none,    // bytes and numbers instead of microseconds
};
inline constexpr std::array clock_names{"host", "device", "graph", "phases", "cpu", "none"};
constexpr std::string_view name_of(Clock clock) noexcept {
  return clock_names[static_cast<std::size_t>(clock)];
}

// By which WireCount counts writes.
inline constexpr std::size_t num_write_sizes = std::tuple_size_v<decltype(WireCount::writes_by_size)>;

inline constexpr std::array dispatch_phase_names{"launch", "count", "agree", "answer", "move", "close"};
inline constexpr std::array combine_phase_names{"launch", "stage", "agree", "sum", "close"};
inline constexpr std::array layout_phase_names{"launch", "count"};
constexpr std::span<char const* const> phase_names(Part part) noexcept {
  switch (part) {
    case Part::dispatch: return dispatch_phase_names;
    case Part::combine: return combine_phase_names;
    case Part::layout: return layout_phase_names;
    default: return {};
  }
}

// What one rank measured: a number for each iteration, or phase of an iteration; or sums by size. A list is empty
// when its part was not measured by its clock. Times are as many on all ranks; phases may be missing on some.
class Samples {
 public:
  [[nodiscard]] std::vector<double>& of(Clock clock, Part part) noexcept { return lists_[place(clock, part)]; }
  [[nodiscard]] std::vector<double> const& of(Clock clock, Part part) const noexcept {
    return lists_[place(clock, part)];
  }
  // All of them, in the same order on all ranks.
  [[nodiscard]] auto& lists() noexcept { return lists_; }
  [[nodiscard]] auto const& lists() const noexcept { return lists_; }

 private:
  static constexpr std::size_t place(Clock clock, Part part) noexcept {
    return static_cast<std::size_t>(clock) * part_names.size() + static_cast<std::size_t>(part);
  }
  std::array<std::vector<double>, clock_names.size() * part_names.size()> lists_{};
};

}  // namespace switchyard::cli
