// What of a decoding step is timed, and by which clock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace switchyard::cli {

enum class Part : std::uint8_t {
  nothing,  // what a measurement shows by itself
  dispatch,
  dispatch_send,
  dispatch_receive,
  combine,
  combine_send,
  combine_receive,
  both,  // a dispatch and a combine
};
inline constexpr std::array all_parts{Part::nothing,          Part::dispatch, Part::dispatch_send,
                                      Part::dispatch_receive, Part::combine,  Part::combine_send,
                                      Part::combine_receive,  Part::both};

constexpr std::string_view name_of(Part part) noexcept {
  switch (part) {
    case Part::nothing: return "nothing";
    case Part::dispatch: return "dispatch";
    case Part::dispatch_send: return "dispatch_send";
    case Part::dispatch_receive: return "dispatch_receive";
    case Part::combine: return "combine";
    case Part::combine_send: return "combine_send";
    case Part::combine_receive: return "combine_receive";
    case Part::both: return "both";
  }
  return "?";
}

enum class Clock : std::uint8_t {
  host,    // from the moment when all ranks were ready until a rank knows that its call is complete
  device,  // CUDA: between two events around the call, all ranks released together by a gate
  graph,   // CUDA: the same within a graph, by the GPU's clock
};
inline constexpr std::array all_clocks{Clock::host, Clock::device, Clock::graph};

constexpr std::string_view name_of(Clock clock) noexcept {
  switch (clock) {
    case Clock::host: return "host";
    case Clock::device: return "device";
    case Clock::graph: return "graph";
  }
  return "?";
}

// Microseconds of each iteration; empty for what was not measured.
class LatencySamples {
 public:
  [[nodiscard]] std::vector<double>& of(Clock clock, Part part) noexcept { return lists_[place(clock, part)]; }
  [[nodiscard]] std::vector<double> const& of(Clock clock, Part part) const noexcept {
    return lists_[place(clock, part)];
  }

 private:
  static constexpr std::size_t place(Clock clock, Part part) noexcept {
    return static_cast<std::size_t>(clock) * all_parts.size() + static_cast<std::size_t>(part);
  }
  std::array<std::vector<double>, all_clocks.size() * all_parts.size()> lists_{};
};

}  // namespace switchyard::cli
