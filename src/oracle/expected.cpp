#include "oracle/expected.hpp"

#include <algorithm>

namespace switchyard::cli {

namespace {

bool any_held(ExpertRange range, std::span<std::int32_t const> ids) {
  return std::any_of(ids.begin(), ids.end(), [range](std::int32_t id) { return range.holds(id); });
}

// Calls `visit(source, token, ids)` for all tokens of all ranks.
template <typename Visit>
void for_each_token(Problem const& problem, RoutingTable const& routing, Visit&& visit) {
  for (int source = 0; source < problem.ranks; ++source) {
    for (std::int64_t t = 0; t < routing.tokens(); ++t) {
      visit(source, static_cast<std::int32_t>(t), routing.token(source, t));
    }
  }
}

}  // namespace

std::vector<ExpectedRow> expected_rows(Problem const& problem, RoutingTable const& routing, int rank) {
  ExpertRange const range = experts_of(problem, rank);
  std::vector<ExpectedRow> rows;
  for_each_token(problem, routing, [&](int source, std::int32_t token, std::span<std::int32_t const> ids) {
    if (!problem.expanded()) {
      if (any_held(range, ids)) rows.push_back({source, token, -1});
      return;
    }
    for (std::int32_t const id : ids) {
      if (range.holds(id)) rows.push_back({source, token, id - range.begin});
    }
  });
  std::stable_sort(rows.begin(), rows.end(),
                   [](ExpectedRow const& a, ExpectedRow const& b) { return a.expert < b.expert; });
  return rows;
}

std::vector<std::int64_t> expected_tokens_per_expert(Problem const& problem, RoutingTable const& routing,
                                                     int rank) {
  ExpertRange const range = experts_of(problem, rank);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(range.count()));
  for_each_token(problem, routing, [&](int, std::int32_t, std::span<std::int32_t const> ids) {
    for (std::int32_t const id : ids) {
      if (range.holds(id)) ++counts[static_cast<std::size_t>(id - range.begin)];
    }
  });
  return counts;
}

std::vector<Contribution> contributions(Problem const& problem, std::span<std::int32_t const> ids) {
  std::vector<Contribution> result;
  for (std::int32_t const id : ids) {
    if (id < 0) continue;
    int const rank = rank_of_expert(problem, id);
    result.push_back({rank, problem.expanded() ? id - experts_of(problem, rank).begin : -1});
  }
  auto const key = [](Contribution const& c) { return std::pair(c.rank, c.expert); };
  std::sort(result.begin(), result.end(),
            [&](Contribution const& a, Contribution const& b) { return key(a) < key(b); });
  auto const last = std::unique(result.begin(), result.end(),
                                [&](Contribution const& a, Contribution const& b) { return key(a) == key(b); });
  result.erase(last, result.end());
  return result;
}

std::vector<Traffic> count_traffic(Problem const& problem, RoutingTable const& routing) {
  std::vector<Traffic> traffic(static_cast<std::size_t>(problem.ranks));
  for_each_token(problem, routing, [&](int source, std::int32_t, std::span<std::int32_t const> ids) {
    auto const to = contributions(problem, ids);
    Traffic& mine = traffic[static_cast<std::size_t>(source)];
    mine.tokens += 1;
    mine.routed_tokens += to.empty() ? 0 : 1;
    mine.sent_rows += static_cast<std::int64_t>(to.size());
    for (Contribution const& c : to) traffic[static_cast<std::size_t>(c.rank)].received_rows += 1;
  });
  return traffic;
}

}  // namespace switchyard::cli
