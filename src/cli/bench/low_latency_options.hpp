// The options that `switchyard bench --mode latency` has beside those of every benchmark.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "switchyard/low_latency.hpp"

namespace CLI {
class App;
}

namespace switchyard::cli {

constexpr std::string_view name_of(SlotLayout layout) noexcept {
  return layout == SlotLayout::rank_major ? "rank" : "expert";
}

constexpr std::string_view name_of(CombineCoding coding) noexcept {
  return coding == CombineCoding::logfmt10 ? "logfmt10" : "none";
}

// By the scales that it makes.
constexpr std::string_view name_of(SendCast cast) noexcept {
  switch (cast) {
    case SendCast::none: return "none";
    case SendCast::fp8: return "f32";
    case SendCast::fp8_pow2: return "pow2";
    case SendCast::fp8_ue8m0: return "ue8m0";
  }
  return "?";
}

struct LatencyOptions {
  std::vector<std::int64_t> tokens{1, 8, 32, 64, 128, 256};  // one case each
  std::int64_t max_tokens = 0;                               // that buffers are made for; 0: the case's
  SlotLayout layout = SlotLayout::expert_major;
  SendCast cast = SendCast::fp8;  // of --dtype fp8-cast
  CombineCoding coding = CombineCoding::none;
  bool zero_copy = true;  // where the coding allows it; see in_place()
  bool graphs = true;     // CUDA engine
  int input_sets = 4;
  int iterations = 200;
  int warmup = 20;

  // Combine reads expert outputs where they were written. Codes take that place, so values lie elsewhere.
  [[nodiscard]] constexpr bool in_place() const noexcept { return zero_copy && coding == CombineCoding::none; }
};

// Those whose names only this mode knows.
void add_latency_options(CLI::App& app, LatencyOptions& options);

}  // namespace switchyard::cli
