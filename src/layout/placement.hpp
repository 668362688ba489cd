// Places the rows that a receiver gets: from the counts of all sources to the row of the result that each source's
// stream starts at.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/buffer.hpp"

namespace switchyard {

struct PlacementProblem {
  OutputLayout layout = OutputLayout::flat;
  int num_ranks = 0;
  int local_experts = 0;
  int expert_alignment = 1;
  // [num_ranks, 1 + local_experts]: of each source its rows, then its top-k slots for each local expert.
  std::span<std::int64_t const> counts;
};

struct Placement {
  std::int64_t rows = 0;                             // of the result, padding included
  std::vector<std::int64_t> starts;                  // [num_ranks, 1 + local_experts], as counts
  std::vector<std::int64_t> recv_rows_end;           // [num_ranks] cumulative rows of the flat layout
  std::vector<std::int64_t> tokens_per_expert;       // [local_experts], rounded up to expert_alignment
  std::vector<std::int64_t> real_tokens_per_expert;  // [local_experts]
};

// Throws InvalidArgument, naming the source, when a count is negative or above max_count.
Placement place_rows(PlacementProblem const& problem, std::int64_t max_count);

}  // namespace switchyard
