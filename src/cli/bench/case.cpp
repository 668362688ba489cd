#include "cli/bench/case.hpp"

#include "layout/logfmt.hpp"

namespace switchyard::cli {

LatencyCase::LatencyCase(BenchOptions const& options, Router const& route, std::int64_t tokens)
    : options_(options) {
  options_.problem.tokens = tokens;
  // A row for each expert of a token, or for each rank: what the layouts of the other mode have.
  options_.problem.layout = by_expert() ? OutputLayout::expanded : OutputLayout::flat;
  for (int set = 0; set < sets(); ++set) routings_.push_back(route(problem(set)));
}

Problem LatencyCase::problem(int set) const {
  Problem result = options_.problem;
  result.seed += static_cast<std::uint64_t>(set);
  return result;
}

std::int64_t LatencyCase::max_tokens() const noexcept {
  return latency().max_tokens > 0 ? latency().max_tokens : options_.problem.tokens;
}

oracle::Terms LatencyCase::terms(int set) const {
  oracle::Terms terms = terms_of(problem(set));
  terms.cast = cast();
  return terms;
}

std::size_t LatencyCase::output_row_bytes() const noexcept {
  if (latency().coding == CombineCoding::logfmt10) {
    return logfmt_row_bytes(static_cast<std::size_t>(options_.problem.hidden));
  }
  return static_cast<std::size_t>(options_.problem.combine_row_bytes());
}

LatencyBytes LatencyCase::bytes() const {
  double rows = 0;
  for (int set = 0; set < sets(); ++set) {
    for (Traffic const& rank : count_traffic(problem(set), routing(set)))
      rows += static_cast<double>(rank.sent_rows);
  }
  rows /= static_cast<double>(sets()) * options_.problem.ranks;
  return {.dispatch = rows * static_cast<double>(options_.problem.received_row_bytes()),
          .combine = rows * static_cast<double>(output_row_bytes())};
}

}  // namespace switchyard::cli
