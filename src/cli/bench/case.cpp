#include "cli/bench/case.hpp"

#include <algorithm>
#include <iterator>

#include "layout/logfmt.hpp"

namespace switchyard::cli {

namespace {

template <typename Bytes>
double mean(std::vector<Traffic> const& traffic, Bytes&& bytes) {
  double sum = 0;
  for (Traffic const& rank : traffic) sum += static_cast<double>(bytes(rank));
  return sum / static_cast<double>(traffic.size());
}

}  // namespace

Case::Case(BenchOptions const& options, Router const& route, std::int64_t tokens) : options_(options) {
  options_.problem.tokens = tokens;
  // A row for each expert of a token, or for each rank: what the layouts of the throughput mode have.
  if (options_.mode == Mode::latency)
    options_.problem.layout = by_expert() ? OutputLayout::expanded : OutputLayout::flat;
  for (int set = 0; set < sets(); ++set) {
    routings_.push_back(route(problem(set)));
    std::ranges::copy(count_traffic(problem(set), routing(set)), std::back_inserter(traffic_));
  }
}

Problem Case::problem(int set) const {
  Problem result = options_.problem;
  result.seed += static_cast<std::uint64_t>(set);
  return result;
}

std::int64_t Case::max_tokens() const noexcept {
  if (latency().max_tokens > 0) return latency().max_tokens;
  return std::max<std::int64_t>(options_.problem.tokens, 1);  // a buffer has room for one
}

oracle::Terms Case::terms(int set) const {
  oracle::Terms terms = terms_of(problem(set));
  terms.cast = cast();
  return terms;
}

std::int64_t Case::output_row_bytes() const noexcept {
  Problem const& problem = options_.problem;
  bool const coded = options_.mode == Mode::latency && latency().coding == CombineCoding::logfmt10;
  if (!coded) return problem.combine_row_bytes();
  return static_cast<std::int64_t>(logfmt_row_bytes(static_cast<std::size_t>(problem.hidden)));
}

CallBytes Case::sent() const {
  std::int64_t const row = options_.problem.received_row_bytes();
  std::int64_t const output = output_row_bytes();
  return {.dispatch = mean(traffic_, [=](Traffic const& rank) { return rank.sent_rows * row; }),
          .combine = mean(traffic_, [=](Traffic const& rank) { return rank.sent_rows * output; })};
}

CallBytes Case::moved() const {
  std::int64_t const in = options_.problem.input_row_bytes();
  std::int64_t const out = options_.problem.received_row_bytes();
  std::int64_t const output = output_row_bytes();
  return {.dispatch = mean(traffic_, [=](Traffic const& t) { return t.routed_tokens * in + t.sent_rows * out; }),
          .combine = mean(traffic_, [=](Traffic const& t) { return (t.sent_rows + t.tokens) * output; })};
}

}  // namespace switchyard::cli
