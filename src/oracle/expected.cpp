#include "oracle/expected.hpp"

#include <algorithm>

#include "oracle/payload.hpp"

namespace switchyard::oracle {

namespace {

std::int64_t round_up(std::int64_t value, int unit) {
  return (value + unit - 1) / unit * unit;
}

// Calls `visit(key)` for all tokens of all ranks.
template <typename Visit>
void for_each_token(Terms const& terms, JobData const& data, Visit&& visit) {
  for (int source = 0; source < terms.ranks; ++source) {
    for (std::int64_t t = 0; t < data.tokens(source); ++t) visit(TokenKey{source, t});
  }
}

// By local expert: a row for each slot that names it.
std::vector<std::vector<Row>> rows_by_expert(Terms const& terms, JobData const& data, int rank) {
  std::vector<std::vector<Row>> rows(static_cast<std::size_t>(experts_of(terms, rank).count()));
  for_each_token(terms, data, [&](TokenKey const& key) {
    for (int slot = 0; slot < terms.top_k; ++slot) {
      auto const expert = static_cast<int>(local_id(terms, data, key, slot, rank));
      if (expert >= 0) rows[static_cast<std::size_t>(expert)].push_back({key.rank, key.token, slot, expert});
    }
  });
  return rows;
}

// The last slot whose expert is `rank`'s; -1 if there is none.
int last_slot(Terms const& terms, JobData const& data, TokenKey const& key, int rank) {
  int slot = terms.top_k - 1;
  while (slot >= 0 && local_id(terms, data, key, slot, rank) < 0) --slot;
  return slot;
}

}  // namespace

bool has_any(Terms const& terms, JobData const& data, TokenKey const& key, ExpertRange range) {
  for (int slot = 0; slot < terms.top_k; ++slot) {
    if (range.holds(data.id(key, slot))) return true;
  }
  return false;
}

bool goes_to(Terms const& terms, JobData const& data, TokenKey const& key, int rank) {
  return terms.by_rank ? data.in_rank(key, rank) : has_any(terms, data, key, experts_of(terms, rank));
}

std::int64_t local_id(Terms const& terms, JobData const& data, TokenKey const& key, int slot, int rank) {
  ExpertRange const range = experts_of(terms, rank);
  std::int64_t const id = data.id(key, slot);
  return range.holds(id) ? id - range.begin : -1;
}

std::vector<Row> received_rows(Terms const& terms, JobData const& data, int rank, int alignment) {
  std::vector<Row> rows;
  if (terms.by_expert) {
    for (auto const& group : rows_by_expert(terms, data, rank)) {
      rows.insert(rows.end(), group.begin(), group.end());
      rows.resize(static_cast<std::size_t>(round_up(std::ssize(rows), alignment)));
    }
    return rows;
  }
  for_each_token(terms, data, [&](TokenKey const& key) {
    if (goes_to(terms, data, key, rank)) rows.push_back({key.rank, key.token});
  });
  return rows;
}

std::vector<std::int64_t> tokens_per_expert(Terms const& terms, JobData const& data, int rank) {
  std::vector<std::int64_t> counts;
  if (terms.by_rank) return counts;
  for (auto const& rows : rows_by_expert(terms, data, rank)) counts.push_back(std::ssize(rows));
  return counts;
}

std::vector<std::int64_t> padded_tokens_per_expert(Terms const& terms, JobData const& data, int rank,
                                                   int alignment) {
  auto counts = tokens_per_expert(terms, data, rank);
  for (std::int64_t& count : counts) count = round_up(count, alignment);
  return counts;
}

std::vector<std::int64_t> rows_end_by_rank(Terms const& terms, JobData const& data, int rank) {
  std::vector<std::int64_t> ends(static_cast<std::size_t>(terms.ranks));
  for_each_token(terms, data, [&](TokenKey const& key) {
    if (goes_to(terms, data, key, rank)) ++ends[static_cast<std::size_t>(key.rank)];
  });
  for (std::size_t r = 1; r < ends.size(); ++r) ends[r] += ends[r - 1];
  return ends;
}

std::vector<Row> slot_rows(Terms const& terms, JobData const& data, int source, ExpertRange range) {
  std::vector<Row> rows;
  for (std::int64_t t = 0; t < data.tokens(source); ++t) {
    TokenKey const key{source, t};
    if (!terms.by_expert && has_any(terms, data, key, range)) rows.push_back({source, t});
    for (int slot = 0; terms.by_expert && slot < terms.top_k; ++slot) {
      if (range.holds(data.id(key, slot))) rows.push_back({source, t, slot});
    }
  }
  return rows;
}

std::vector<Contribution> contributions(Terms const& terms, JobData const& data, TokenKey const& key) {
  std::vector<Contribution> parts;
  if (!terms.by_expert) {
    for (int rank = 0; rank < terms.ranks; ++rank) {
      if (goes_to(terms, data, key, rank)) parts.push_back({rank, {key.rank, key.token}});
    }
    if (!terms.by_rank) {
      std::sort(parts.begin(), parts.end(), [&](Contribution const& a, Contribution const& b) {
        return last_slot(terms, data, key, a.maker) < last_slot(terms, data, key, b.maker);
      });
    }
    return parts;
  }
  for (int slot = 0; slot < terms.top_k; ++slot) {
    std::int64_t const id = data.id(key, slot);
    if (id < 0) continue;
    int const rank = rank_of_expert(terms, id);
    auto const expert = static_cast<int>(id - experts_of(terms, rank).begin);
    parts.push_back({rank, {key.rank, key.token, slot, expert}});
  }
  return parts;
}

std::vector<Contribution> slot_contributions(Terms const& terms, JobData const& data, TokenKey const& key) {
  std::vector<Contribution> parts = contributions(terms, data, key);
  if (!terms.by_expert) {
    std::sort(parts.begin(), parts.end(),
              [](Contribution const& a, Contribution const& b) { return a.maker < b.maker; });
    return parts;
  }
  std::sort(parts.begin(), parts.end(),
            [](Contribution const& a, Contribution const& b) { return a.row.slot < b.row.slot; });
  std::vector<float> const weights = data.weights(key);
  for (Contribution& part : parts) {
    if (terms.weights) part.weight = weights[static_cast<std::size_t>(part.row.slot)];
  }
  return parts;
}

std::vector<Traffic> count_traffic(Problem const& problem, RoutingTable const& routing) {
  Terms const terms = terms_of(problem);
  SeededData const data(problem, routing);
  std::vector<Traffic> traffic(static_cast<std::size_t>(problem.ranks));
  for_each_token(terms, data, [&](TokenKey const& key) {
    auto const to = contributions(terms, data, key);
    Traffic& mine = traffic[static_cast<std::size_t>(key.rank)];
    mine.tokens += 1;
    mine.routed_tokens += to.empty() ? 0 : 1;
    mine.sent_rows += std::ssize(to);
    for (Contribution const& c : to) traffic[static_cast<std::size_t>(c.maker)].received_rows += 1;
  });
  return traffic;
}

}  // namespace switchyard::oracle
