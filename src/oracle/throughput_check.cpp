#include "oracle/throughput_check.hpp"

#include <fmt/ranges.h>

#include <algorithm>

#include "oracle/check_sums.hpp"
#include "oracle/compare.hpp"

namespace switchyard::cli {

Checker::Checker(Problem const& problem, RoutingTable const& routing, int rank)
    : problem_(problem), routing_(routing), rank_(rank), rows_(expected_rows(problem, routing, rank)) {}

Mismatch Checker::check_dispatch(Dispatched const& got) const {
  if (auto fault = check_sizes(got)) return fault;
  if (auto fault = check_routing(got)) return fault;
  return check_payload(got);
}

Mismatch Checker::check_sizes(Dispatched const& got) const {
  auto const rows = static_cast<std::int64_t>(rows_.size());
  auto const wrong = [&](char const* what, std::int64_t expected, std::int64_t seen) {
    return fmt::format("{} on rank {}: expected {}, seen {} (seed {})", what, rank_, expected, seen, problem_.seed);
  };
  if (got.handle.num_recv_rows() != rows) return wrong("received rows", rows, got.handle.num_recv_rows());
  if (got.x.size(0) != rows) return wrong("rows of x", rows, got.x.size(0));
  if (got.x.size(1) != problem_.hidden) return wrong("columns of x", problem_.hidden, got.x.size(1));
  if (got.x.dtype() != problem_.received_dtype()) {
    return wrong("dtype of x", static_cast<int>(problem_.received_dtype()), static_cast<int>(got.x.dtype()));
  }
  if (got.source_token.size(0) != rows) return wrong("rows of source_token", rows, got.source_token.size(0));
  if (got.topk_weights.size(0) != rows) return wrong("rows of topk_weights", rows, got.topk_weights.size(0));
  auto const counts = expected_tokens_per_expert(problem_, routing_, rank_);
  if (got.tokens_per_expert == counts) return std::nullopt;
  return fmt::format("tokens per expert on rank {}: expected {}, seen {} (seed {})", rank_, counts,
                     got.tokens_per_expert, problem_.seed);
}

Mismatch Checker::check_routing(Dispatched const& got) const {
  auto const* const tokens = got.source_token.data<std::int32_t>();
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    Place const place{"source token", rank_, i, -1, problem_.seed};
    if (tokens[i] != rows_[i].token) return mismatch(place, rows_[i].token, tokens[i]);
    if (auto fault = problem_.expanded() ? check_expanded_row(got, i) : check_flat_row(got, i)) return fault;
  }
  if (problem_.expanded()) return std::nullopt;
  std::vector<std::int64_t> ends(static_cast<std::size_t>(problem_.ranks));
  for (auto const& row : rows_) ++ends[static_cast<std::size_t>(row.source)];
  for (std::size_t r = 1; r < ends.size(); ++r) ends[r] += ends[r - 1];
  auto const& seen = got.handle.recv_rows_end_by_rank();
  if (seen == ends) return std::nullopt;
  return fmt::format("rows by source on rank {}: expected {}, seen {} (seed {})", rank_, ends, seen, problem_.seed);
}

Mismatch Checker::check_flat_row(Dispatched const& got, std::size_t row) const {
  ExpectedRow const& from = rows_[row];
  auto const width = static_cast<std::size_t>(problem_.top_k);
  ExpertRange const range = experts_of(problem_, rank_);
  auto const ids = routing_.token(from.source, from.token);
  std::vector<std::int64_t> expected_ids(width);
  std::vector<float> weights(width);
  fill_weights(problem_, {from.source, from.token}, weights);
  for (std::size_t k = 0; k < width; ++k) {
    bool const ours = range.holds(ids[k]);
    expected_ids[k] = ours ? ids[k] - range.begin : -1;
    if (!ours) weights[k] = 0;
  }
  Place const at_ids{"top-k id", rank_, row, -1, problem_.seed};
  auto const* const seen_ids = got.topk_idx.data<std::int64_t>() + row * width;
  if (auto fault = compare<std::int64_t>(at_ids, expected_ids, seen_ids)) return fault;
  Place const at_weights{"top-k weight", rank_, row, -1, problem_.seed};
  return compare<float>(at_weights, weights, got.topk_weights.data<float>() + row * width);
}

Mismatch Checker::check_expanded_row(Dispatched const& got, std::size_t row) const {
  ExpectedRow const& from = rows_[row];
  auto const ids = routing_.token(from.source, from.token);
  std::vector<float> weights(ids.size());
  fill_weights(problem_, {from.source, from.token}, weights);
  auto const slot =
      std::find(ids.begin(), ids.end(), from.expert + experts_of(problem_, rank_).begin) - ids.begin();
  float const expected = weights[static_cast<std::size_t>(slot)];
  float const seen = got.topk_weights.data<float>()[row];
  if (expected == seen) return std::nullopt;
  return mismatch(Place{"top-k weight", rank_, row, -1, problem_.seed}, expected, seen);
}

Mismatch Checker::check_payload(Dispatched const& got) const {
  ReceivedToken expected;
  std::size_t const width = size_of(problem_.received_dtype());
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    fill_received(problem_, {rows_[i].source, rows_[i].token}, expected);
    auto const* const row = got.x.data<std::byte>() + i * expected.row.size();
    if (auto fault = compare_row({"dispatched x", rank_, i, -1, problem_.seed}, expected.row, row, width))
      return fault;
    if (expected.scales.empty()) continue;
    auto const* const scales = got.scales.data<float>() + i * expected.scales.size();
    if (auto fault = compare<float>({"scale", rank_, i, -1, problem_.seed}, expected.scales, scales)) return fault;
  }
  return std::nullopt;
}

void Checker::fill_expert_outputs(std::span<std::uint16_t> outputs) const {
  auto const hidden = static_cast<std::size_t>(problem_.hidden);
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    OutputKey const key{rank_, rows_[i].expert, {rows_[i].source, rows_[i].token}};
    fill_expert_output(problem_, key, outputs.subspan(i * hidden, hidden));
  }
}

void Checker::add_expected(std::int64_t token, std::span<float> sum) const {
  std::vector<std::uint16_t> row(sum.size());
  for (Contribution const& from : contributions(problem_, routing_.token(rank_, token))) {
    fill_expert_output(problem_, {from.rank, from.expert, {rank_, token}}, row);
    for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += bf16_to_float(row[c]);
  }
}

Mismatch Checker::check_combine(std::span<std::uint16_t const> got) const {
  return check_sums(problem_, rank_, got,
                    [&](std::int64_t token, std::span<float> sum) { add_expected(token, sum); });
}

}  // namespace switchyard::cli
