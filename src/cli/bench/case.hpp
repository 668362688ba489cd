// One case of a latency benchmark: a number of tokens, with the routings of all input sets.
#pragma once

#include <vector>

#include "cli/bench/footprint.hpp"
#include "cli/bench/options.hpp"
#include "oracle/low_latency_check.hpp"
#include "oracle/routing.hpp"

namespace switchyard::cli {

// What one rank puts on its way in a call: mean over ranks and input sets.
struct LatencyBytes {
  double dispatch = 0;
  double combine = 0;
};

class LatencyCase {
 public:
  LatencyCase(BenchOptions const& options, Router const& route, std::int64_t tokens);

  [[nodiscard]] BenchOptions const& options() const noexcept { return options_; }
  [[nodiscard]] LatencyOptions const& latency() const noexcept { return options_.latency; }
  [[nodiscard]] int sets() const noexcept { return options_.latency.input_sets; }
  // Of an input set; they differ in the seed only.
  [[nodiscard]] Problem problem(int set = 0) const;
  [[nodiscard]] RoutingTable const& routing(int set) const { return routings_[static_cast<std::size_t>(set)]; }

  [[nodiscard]] bool by_expert() const noexcept { return latency().layout == SlotLayout::expert_major; }
  [[nodiscard]] SendCast cast() const noexcept {
    return options_.problem.payload == Payload::fp8_cast ? latency().cast : SendCast::none;
  }
  [[nodiscard]] std::int64_t max_tokens() const noexcept;
  [[nodiscard]] oracle::Terms terms(int set) const;
  [[nodiscard]] oracle::SlotTerms slot_terms() const {
    return {.max_tokens = max_tokens(), .coding = latency().coding};
  }
  [[nodiscard]] std::size_t output_row_bytes() const noexcept;  // on its way back
  [[nodiscard]] LatencyBytes bytes() const;

 private:
  BenchOptions options_;
  std::vector<RoutingTable> routings_;
};

}  // namespace switchyard::cli
