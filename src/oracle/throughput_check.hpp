// Compares every value that dispatch and combine delivered with what it must be.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "oracle/expected.hpp"
#include "oracle/payload.hpp"
#include "oracle/problem.hpp"
#include "oracle/routing.hpp"
#include "switchyard/buffer.hpp"

namespace switchyard::cli {

// The checks of one rank. Each returns the first mismatch (what, rank, row, channel, expected, seen, seed), or
// nothing.
class Checker {
 public:
  Checker(Problem const& problem, RoutingTable const& routing, int rank);

  [[nodiscard]] std::vector<ExpectedRow> const& rows() const noexcept { return rows_; }
  [[nodiscard]] std::optional<std::string> check_dispatch(Dispatched const& got) const;
  [[nodiscard]] std::optional<std::string> check_combine(std::span<std::uint16_t const> got) const;
  // Expert outputs in the rows of the dispatch.
  void fill_expert_outputs(std::span<std::uint16_t> outputs) const;

 private:
  [[nodiscard]] std::optional<std::string> check_sizes(Dispatched const& got) const;
  [[nodiscard]] std::optional<std::string> check_payload(Dispatched const& got) const;
  [[nodiscard]] std::optional<std::string> check_routing(Dispatched const& got) const;
  [[nodiscard]] std::optional<std::string> check_flat_row(Dispatched const& got, std::size_t row) const;
  [[nodiscard]] std::optional<std::string> check_expanded_row(Dispatched const& got, std::size_t row) const;
  void add_expected(std::int64_t token, std::span<float> sum) const;

  Problem problem_;
  RoutingTable const& routing_;
  int rank_;
  std::vector<ExpectedRow> rows_;
};

}  // namespace switchyard::cli
