#include "cli/bench/footprint.hpp"

#include <fmt/core.h>

#include <algorithm>

#include "cli/bench/copy_ceiling.hpp"
#include "switchyard/error.hpp"

namespace switchyard::cli {

namespace {

constexpr std::int64_t mebibyte = 1 << 20;
// Of a rank, beside its tensors: program, stacks, control blocks, tables of the check.
constexpr std::int64_t rank_overhead = 48 * mebibyte;
constexpr std::int64_t sample_tokens = 1024;

}  // namespace

Footprint footprint_of(Problem const& problem, Traffic const& traffic) {
  std::int64_t const routing_bytes = problem.top_k * (8 + 4);
  std::int64_t const received_routing = (problem.expanded() ? 4 : routing_bytes) + 4;
  return {.inputs = traffic.tokens * (problem.input_row_bytes() + routing_bytes),
          .received = traffic.received_rows * (problem.received_row_bytes() + received_routing),
          .expert_outputs = traffic.received_rows * problem.combine_row_bytes(),
          .combined = traffic.tokens * problem.combine_row_bytes()};
}

std::size_t heap_bytes_for(Problem const& problem, std::vector<Traffic> const& traffic) {
  std::int64_t most = 0;
  for (Traffic const& rank : traffic) {
    Footprint const bytes = footprint_of(problem, rank);
    most = std::max(most, bytes.received + bytes.expert_outputs + bytes.combined);
  }
  // The CUDA engine first takes room for all that could arrive.
  std::int64_t const could_arrive = problem.ranks * problem.tokens * (problem.received_row_bytes() + 1024);
  return static_cast<std::size_t>(most + most / 4 + could_arrive + 64 * mebibyte);
}

std::int64_t tokens_that_fit(Problem const& problem, Router const& route, std::int64_t available,
                             std::int64_t copy_buffers) {
  Problem sample = problem;
  sample.tokens = std::clamp(problem.tokens, std::int64_t{1}, sample_tokens);
  std::int64_t sampled = 0;
  for (Traffic const& traffic : count_traffic(sample, route(sample)))
    sampled += footprint_of(sample, traffic).total();
  std::int64_t const fixed = problem.ranks * (rank_overhead + copy_buffers);
  auto const per_token = static_cast<double>(sampled) / static_cast<double>(sample.tokens);
  // A part stays free: other processes live too.
  double const usable = static_cast<double>(available) * 0.85 - static_cast<double>(fixed);
  auto const fit = static_cast<std::int64_t>(std::max(usable / per_token, 0.0));
  if (usable >= 0 && fit >= problem.tokens) return problem.tokens;
  if (fit == 0) {
    throw OutOfMemory(
        fmt::format("{} ranks need {} MiB before the first token, {} MiB are available (of which a part "
                    "stays free): use fewer --ranks",
                    problem.ranks, fixed / mebibyte, available / mebibyte));
  }
  return fit >= 64 ? fit / 64 * 64 : fit;
}

}  // namespace switchyard::cli
