#include "layout/placement.hpp"

#include "base/check.hpp"

namespace switchyard {

namespace {

std::size_t at(PlacementProblem const& problem, int source, int slot) {
  return static_cast<std::size_t>(source) * static_cast<std::size_t>(1 + problem.local_experts) +
         static_cast<std::size_t>(slot);
}

void check_counts(PlacementProblem const& problem, std::int64_t max_count) {
  for (int source = 0; source < problem.num_ranks; ++source) {
    for (int slot = 0; slot <= problem.local_experts; ++slot) {
      std::int64_t const count = problem.counts[at(problem, source, slot)];
      require(count >= 0 && count <= max_count, "rank {}: count {}: expected 0..{}, seen {}", source, slot,
              max_count, count);
    }
  }
}

// Orders rows by source, then by token; fills column 0 of `starts`.
void place_flat(PlacementProblem const& problem, Placement& placement) {
  std::int64_t end = 0;
  for (int source = 0; source < problem.num_ranks; ++source) {
    placement.starts[at(problem, source, 0)] = end;
    end += problem.counts[at(problem, source, 0)];
    placement.recv_rows_end.push_back(end);
  }
  if (problem.layout == OutputLayout::flat) placement.rows = end;
}

// Orders rows by expert (aligned), then by source, then by token; fills columns 1, 2, ... of `starts`.
void place_expanded(PlacementProblem const& problem, Placement& placement) {
  std::int64_t begin = 0;
  for (int expert = 0; expert < problem.local_experts; ++expert) {
    std::int64_t end = begin;
    for (int source = 0; source < problem.num_ranks; ++source) {
      placement.starts[at(problem, source, 1 + expert)] = end;
      end += problem.counts[at(problem, source, 1 + expert)];
    }
    std::int64_t const alignment = problem.expert_alignment;
    std::int64_t const padded = (end - begin + alignment - 1) / alignment * alignment;
    placement.real_tokens_per_expert.push_back(end - begin);
    placement.tokens_per_expert.push_back(padded);
    begin += padded;
  }
  if (problem.layout == OutputLayout::expanded) placement.rows = begin;
}

}  // namespace

Placement place_rows(PlacementProblem const& problem, std::int64_t max_count) {
  check_counts(problem, max_count);
  Placement placement;
  placement.starts.resize(problem.counts.size());
  place_flat(problem, placement);
  place_expanded(problem, placement);
  return placement;
}

}  // namespace switchyard
