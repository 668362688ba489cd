// Compares the sums that a combine delivered with what they must be.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "oracle/compare.hpp"
#include "oracle/payload.hpp"
#include "oracle/problem.hpp"

namespace switchyard::cli {

// add_expected(token, sum): adds up in f32 what a token's sum takes, in the order of the combine.
template <typename AddExpected>
Mismatch check_sums(Problem const& problem, int rank, std::span<std::uint16_t const> got,
                    AddExpected const& add_expected) {
  auto const hidden = static_cast<std::size_t>(problem.hidden);
  std::vector<float> sum(hidden);
  std::vector<std::uint16_t> expected(hidden);
  for (std::int64_t t = 0; t < problem.tokens; ++t) {
    std::fill(sum.begin(), sum.end(), 0.0F);
    add_expected(t, std::span(sum));
    std::transform(sum.begin(), sum.end(), expected.begin(), float_to_bf16);
    auto const row = static_cast<std::size_t>(t);
    auto const seen = std::as_bytes(got.subspan(row * hidden, hidden));
    Place const place{"combined x", rank, row, -1, problem.seed};
    if (auto fault = compare_row(place, std::as_bytes(std::span(expected)), seen.data(), 2)) return fault;
  }
  return std::nullopt;
}

}  // namespace switchyard::cli
