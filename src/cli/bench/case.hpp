// One case of a benchmark: a number of tokens, with the routings of all input sets.
#pragma once

#include <vector>

#include "cli/bench/footprint.hpp"
#include "cli/bench/options.hpp"
#include "oracle/low_latency_check.hpp"
#include "oracle/routing.hpp"

namespace switchyard::cli {

// Mean over ranks and input sets.
struct CallBytes {
  double dispatch = 0;
  double combine = 0;
};

// The same on all ranks.
class Case {
 public:
  Case(BenchOptions const& options, Router const& route, std::int64_t tokens);

  [[nodiscard]] BenchOptions const& options() const noexcept { return options_; }
  [[nodiscard]] LatencyOptions const& latency() const noexcept { return options_.latency; }
  // Inputs that calls take in turn.
  [[nodiscard]] int sets() const noexcept {
    return options_.mode == Mode::latency ? options_.latency.input_sets : 1;
  }
  // Of an input set; they differ in the seed only.
  [[nodiscard]] Problem problem(int set = 0) const;
  [[nodiscard]] RoutingTable const& routing(int set) const { return routings_[static_cast<std::size_t>(set)]; }
  // By input set, then by rank.
  [[nodiscard]] std::vector<Traffic> const& traffic() const noexcept { return traffic_; }

  [[nodiscard]] bool by_expert() const noexcept { return latency().layout == SlotLayout::expert_major; }
  [[nodiscard]] SendCast cast() const noexcept {
    return options_.problem.payload == Payload::fp8_cast ? latency().cast : SendCast::none;
  }
  [[nodiscard]] std::int64_t max_tokens() const noexcept;
  [[nodiscard]] oracle::Terms terms(int set) const;
  [[nodiscard]] oracle::SlotTerms slot_terms() const {
    return {.max_tokens = max_tokens(), .coding = latency().coding};
  }

  // What one rank sends in a call, which in the mean is what one receives.
  [[nodiscard]] CallBytes sent() const;
  // Of a row and its scales, on their way and back.
  [[nodiscard]] CallBytes of_a_row() const noexcept {
    return {static_cast<double>(options_.problem.received_row_bytes()), static_cast<double>(output_row_bytes())};
  }
  // What one rank must read and write in a call of the throughput mode, each byte once.
  [[nodiscard]] CallBytes moved() const;

 private:
  [[nodiscard]] std::int64_t output_row_bytes() const noexcept;  // on its way back

  BenchOptions options_;
  std::vector<RoutingTable> routings_;
  std::vector<Traffic> traffic_;
};

}  // namespace switchyard::cli
