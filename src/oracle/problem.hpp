// The problem that a benchmark runs: sizes, element type, layout and seed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "oracle/job.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::oracle {

enum class Payload : std::uint8_t {
  fp8,       // f8e4m3 with one f32 scale per 128 channels, given by the caller
  fp8_cast,  // bf16, cast to fp8 by the dispatch
  bf16,
  f16,
  f32,
};

constexpr std::string_view name_of(Payload payload) noexcept {
  switch (payload) {
    case Payload::fp8: return "fp8";
    case Payload::fp8_cast: return "fp8-cast";
    case Payload::bf16: return "bf16";
    case Payload::f16: return "f16";
    case Payload::f32: return "f32";
  }
  return "?";
}

struct Problem {
  int ranks = 8;
  std::int64_t tokens = 4096;  // a rank
  std::int64_t hidden = 7168;
  int top_k = 8;
  int experts = 256;
  std::uint64_t seed = 1;
  Payload payload = Payload::fp8;
  OutputLayout layout = OutputLayout::flat;
  std::vector<int> node_by_rank{};  // empty: one node

  [[nodiscard]] int nodes() const { return node_by_rank.empty() ? 1 : 1 + *std::ranges::max_element(node_by_rank); }
  [[nodiscard]] bool sends_fp8() const noexcept { return payload == Payload::fp8 || payload == Payload::fp8_cast; }
  [[nodiscard]] bool expanded() const noexcept { return layout == OutputLayout::expanded; }
  [[nodiscard]] std::int64_t scale_groups() const noexcept { return (hidden + 127) / 128; }
  [[nodiscard]] DType input_dtype() const noexcept {
    switch (payload) {
      case Payload::fp8: return DType::f8e4m3;
      case Payload::f16: return DType::f16;
      case Payload::f32: return DType::f32;
      case Payload::fp8_cast:
      case Payload::bf16: break;
    }
    return DType::bf16;
  }
  [[nodiscard]] DType received_dtype() const noexcept { return sends_fp8() ? DType::f8e4m3 : input_dtype(); }

  // Bytes of a token with its scales: as it is read, as it arrives, and on its way back.
  [[nodiscard]] std::int64_t input_row_bytes() const noexcept {
    return hidden * static_cast<std::int64_t>(size_of(input_dtype())) +
           (payload == Payload::fp8 ? scale_groups() * 4 : 0);
  }
  [[nodiscard]] std::int64_t received_row_bytes() const noexcept {
    return hidden * static_cast<std::int64_t>(size_of(received_dtype())) + (sends_fp8() ? scale_groups() * 4 : 0);
  }
  [[nodiscard]] std::int64_t combine_row_bytes() const noexcept { return hidden * 2; }
};

// What its calls ask for.
inline Terms terms_of(Problem const& problem) {
  return {.ranks = problem.ranks,
          .experts = problem.experts,
          .top_k = problem.top_k,
          .hidden = problem.hidden,
          .dtype = problem.input_dtype(),
          .cast = problem.payload == Payload::fp8_cast ? SendCast::fp8 : SendCast::none,
          .by_expert = problem.expanded(),
          .seed = problem.seed,
          .node_by_rank = problem.node_by_rank};
}

}  // namespace switchyard::oracle
