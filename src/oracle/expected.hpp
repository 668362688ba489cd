// What a dispatch must deliver, derived from the routing alone.
#pragma once

#include <cstdint>
#include <vector>

#include "oracle/problem.hpp"
#include "oracle/routing.hpp"

namespace switchyard::cli {

struct ExpectedRow {
  std::int32_t source = 0;
  std::int32_t token = 0;
  std::int32_t expert = -1;  // local id; -1 in the flat layout
};

// The rows that `rank` receives, in their order: flat by source rank and token, expanded by local expert,
// source rank and token.
std::vector<ExpectedRow> expected_rows(Problem const& problem, RoutingTable const& routing, int rank);

// Tokens (of all ranks) that each local expert of `rank` gets.
std::vector<std::int64_t> expected_tokens_per_expert(Problem const& problem, RoutingTable const& routing, int rank);

// One expert output that a token's sum takes.
struct Contribution {
  int rank = 0;
  int expert = -1;  // local id; -1 in the flat layout
};
// Those of one token: flat, one per rank that holds an expert of it, by rank; expanded, one per expert.
std::vector<Contribution> contributions(Problem const& problem, std::span<std::int32_t const> ids);

// Rows that move, for one rank.
struct Traffic {
  std::int64_t tokens = 0;         // of this rank
  std::int64_t routed_tokens = 0;  // of these, with at least one expert
  std::int64_t sent_rows = 0;      // written by dispatch, pulled by combine
  std::int64_t received_rows = 0;  // received by dispatch, expert outputs of combine
};
// By rank.
std::vector<Traffic> count_traffic(Problem const& problem, RoutingTable const& routing);

}  // namespace switchyard::cli
