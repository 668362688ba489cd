#include "support/reference.hpp"

#include <algorithm>
#include <cmath>

#include "support/numbers.hpp"

namespace switchyard::test {
namespace {

std::int64_t round_up(std::int64_t value, std::int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

std::vector<Row> flat_rows(Problem const& p, int receiver) {
  std::vector<Row> rows;
  for (int source = 0; source < p.the.ranks; ++source) {
    for (std::int64_t token = 0; token < p.inputs[index(source)].tokens; ++token) {
      if (goes_to(p, source, token, receiver)) rows.push_back({source, token, -1});
    }
  }
  return rows;
}

// (token, slot) pairs that chose `expert`, by source rank, then token, then slot.
std::vector<Row> rows_of_expert(Problem const& p, std::int64_t expert) {
  std::vector<Row> rows;
  for (int source = 0; source < p.the.ranks; ++source) {
    for (std::int64_t token = 0; token < p.inputs[index(source)].tokens; ++token) {
      for (int slot = 0; slot < p.the.top_k; ++slot) {
        if (ids_of(p, source, token)[slot] == expert) rows.push_back({source, token, slot});
      }
    }
  }
  return rows;
}

std::vector<Row> expanded_rows(Problem const& p, int receiver) {
  std::vector<Row> rows;
  ExpertRange const ours = experts_of(p.the, receiver);
  for (std::int64_t expert = ours.begin; expert < ours.end; ++expert) {
    std::vector<Row> const group = rows_of_expert(p, expert);
    rows.insert(rows.end(), group.begin(), group.end());
    rows.resize(index(round_up(static_cast<std::int64_t>(rows.size()), p.the.alignment)));
  }
  return rows;
}

}  // namespace

ExpertRange experts_of(Case const& c, int rank) {
  ExpertRange range;
  for (int r = 0; r <= rank; ++r) {
    range.begin = range.end;
    range.end += c.experts / c.ranks + (r < c.experts % c.ranks ? 1 : 0);
  }
  return range;
}

int owner_of(Case const& c, std::int64_t expert) {
  int rank = 0;
  while (!experts_of(c, rank).holds(expert)) ++rank;
  return rank;
}

std::int64_t const* ids_of(Problem const& p, int source, std::int64_t token) {
  return &p.inputs[index(source)].ids[index(token * p.the.top_k)];
}

bool goes_to(Problem const& p, int source, std::int64_t token, int receiver) {
  if (p.the.by_rank) return p.inputs[index(source)].ranks[index(token * p.the.ranks + receiver)] != 0;
  ExpertRange const ours = experts_of(p.the, receiver);
  std::int64_t const* const ids = ids_of(p, source, token);
  return std::any_of(ids, ids + p.the.top_k, [&](std::int64_t id) { return ours.holds(id); });
}

std::int64_t worst_rows(Problem const& p) {
  if (p.the.worst_rows > 0) return p.the.worst_rows;
  std::size_t most = 0;
  for (int rank = 0; rank < p.the.ranks; ++rank) {
    most = std::max(most, p.the.expanded() ? expanded_rows(p, rank).size() : flat_rows(p, rank).size());
  }
  return static_cast<std::int64_t>(most) + 3;
}

std::vector<Row> received_rows(Problem const& p, int receiver) {
  std::vector<Row> rows = p.the.expanded() ? expanded_rows(p, receiver) : flat_rows(p, receiver);
  if (p.the.worst) rows.resize(index(worst_rows(p)));
  return rows;
}

std::vector<std::int64_t> real_tokens_per_expert(Problem const& p, int receiver) {
  std::vector<std::int64_t> counts;
  if (p.the.by_rank) return counts;
  ExpertRange const ours = experts_of(p.the, receiver);
  for (std::int64_t expert = ours.begin; expert < ours.end; ++expert)
    counts.push_back(static_cast<std::int64_t>(rows_of_expert(p, expert).size()));
  return counts;
}

std::vector<std::int64_t> padded_tokens_per_expert(Problem const& p, int receiver) {
  std::vector<std::int64_t> counts = real_tokens_per_expert(p, receiver);
  for (std::int64_t& count : counts) count = round_up(count, p.the.alignment);
  return counts;
}

std::vector<std::int64_t> tokens_per_expert(Problem const& p, int receiver) {
  return p.the.worst ? std::vector<std::int64_t>{} : padded_tokens_per_expert(p, receiver);
}

std::vector<std::int64_t> rows_end_by_rank(Problem const& p, int receiver) {
  std::vector<std::int64_t> ends(index(p.the.ranks), 0);
  for (Row const& row : flat_rows(p, receiver)) {
    for (int rank = row.source; rank < p.the.ranks; ++rank) ++ends[index(rank)];
  }
  return ends;
}

std::int64_t local_id(Problem const& p, Row const& row, int receiver, int slot) {
  if (row.pads()) return -1;
  ExpertRange const ours = experts_of(p.the, receiver);
  std::int64_t const id = ids_of(p, row.source, row.token)[slot];
  return ours.holds(id) ? id - ours.begin : -1;
}

float weight_of(Problem const& p, Row const& row, int slot) {
  return p.inputs[index(row.source)].weights[index(row.token * p.the.top_k + slot)];
}

TokenData cast_by_definition(std::byte const* row, Case const& c) {
  TokenData out{std::vector<std::byte>(index(c.hidden)), std::vector<float>(index(c.groups()))};
  for (std::int64_t group = 0; group < c.groups(); ++group) {
    std::int64_t const end = std::min(c.hidden, (group + 1) * 128);
    float amax = 1e-4F;
    for (std::int64_t h = group * 128; h < end; ++h) amax = std::max(amax, std::fabs(get(row, c.dtype, index(h))));
    float const factor = 448.0F / amax;
    out.scales[index(group)] = amax / 448.0F;
    for (std::int64_t h = group * 128; h < end; ++h) {
      float const scaled = get(row, c.dtype, index(h)) * factor;
      put(out.x.data(), DType::f8e4m3, index(h), scaled);
    }
  }
  return out;
}

TokenData token_data(Problem const& p, Row const& row) {
  RankInput const& input = p.inputs[index(row.source)];
  std::size_t const bytes = index(p.the.hidden) * size_of(p.the.dtype);
  std::byte const* const begin = input.x.data() + index(row.token) * bytes;
  if (p.the.cast) return cast_by_definition(begin, p.the);
  TokenData out{std::vector<std::byte>(begin, begin + bytes), {}};
  if (p.the.dtype != DType::f8e4m3) return out;
  float const* const scales = input.scales.data() + row.token * p.the.groups();
  out.scales.assign(scales, scales + p.the.groups());
  return out;
}

}  // namespace switchyard::test
