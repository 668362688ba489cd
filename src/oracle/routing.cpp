#include "oracle/routing.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.hpp"
#include "oracle/random.hpp"

namespace switchyard::oracle {

namespace {

using Ids = std::span<std::int32_t>;

// Writes the experts of `candidates` with the highest scores, best first, then -1.
void write_best(std::span<double const> scores, std::vector<std::int32_t>& candidates, Ids ids) {
  auto const count = static_cast<std::ptrdiff_t>(std::min(ids.size(), candidates.size()));
  std::partial_sort(candidates.begin(), candidates.begin() + count, candidates.end(),
                    [&](std::int32_t a, std::int32_t b) {
                      return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
                    });
  auto const rest = std::copy_n(candidates.begin(), count, ids.begin());
  std::fill(rest, ids.end(), -1);
}

// Floyd's algorithm: every set of distinct experts is equally likely.
void uniform_ids(Problem const& problem, RandomRow const& random, Ids ids) {
  auto const count = std::min(ids.size(), static_cast<std::size_t>(problem.experts));
  for (std::size_t i = 0; i < count; ++i) {
    auto const last = static_cast<std::uint64_t>(problem.experts) - count + i;
    auto const pick = static_cast<std::int32_t>(random.below(i, last + 1));
    auto const chosen = ids.first(i);
    bool const taken = std::find(chosen.begin(), chosen.end(), pick) != chosen.end();
    ids[i] = taken ? static_cast<std::int32_t>(last) : pick;
  }
  std::fill(ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(), -1);
}

struct Group {
  int begin = 0;
  int end = 0;
  double score = 0;
};

double best_two(std::span<double const> scores) {
  double best = -1;
  double second = -1;
  for (double const score : scores) {
    if (score > best) {
      second = std::exchange(best, score);
    } else {
      second = std::max(second, score);
    }
  }
  return best + std::max(second, 0.0);
}

std::vector<Group> ranked_groups(std::span<double const> scores, int count) {
  // Contiguous ranges; the first experts % count groups hold one more.
  std::vector<Group> groups;
  int const experts = static_cast<int>(scores.size());
  for (int g = 0, begin = 0; g < count; ++g) {
    int const size = experts / count + (g < experts % count ? 1 : 0);
    auto const part = scores.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(size));
    groups.push_back({begin, begin + size, best_two(part)});
    begin += size;
  }
  std::stable_sort(groups.begin(), groups.end(), [](Group const& a, Group const& b) { return a.score > b.score; });
  return groups;
}

// DeepSeek-V3's gate with random scores: experts form 8 groups, a group's score is the sum of its two best
// experts, the 4 best groups stay, and the top_k best experts of these are taken. With fewer than 8 experts
// there are as many groups as experts and half of them stay; when the groups that stay hold fewer than top_k
// experts, the next best groups stay too.
void group_limited_ids(Problem const& problem, RandomRow const& random, Ids ids) {
  std::vector<double> scores(static_cast<std::size_t>(problem.experts));
  for (std::size_t e = 0; e < scores.size(); ++e) scores[e] = random.uniform(e);
  int const groups = std::min(8, problem.experts);
  int const stay = (groups + 1) / 2;
  std::vector<std::int32_t> candidates;
  int taken = 0;
  for (Group const& group : ranked_groups(scores, groups)) {
    if (taken++ >= stay && candidates.size() >= ids.size()) break;
    for (int e = group.begin; e < group.end; ++e) candidates.push_back(e);
  }
  write_best(scores, candidates, ids);
}

// Popularity of each expert: 1 / (1 + its place in an order that the seed sets).
std::vector<double> zipf_popularity(Problem const& problem) {
  std::vector<std::size_t> order(static_cast<std::size_t>(problem.experts));
  std::iota(order.begin(), order.end(), std::size_t{0});
  RandomRow const random(problem.seed, Purpose::permutation, 0, 0);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i, i)]);
  std::vector<double> popularity(order.size());
  for (std::size_t place = 0; place < order.size(); ++place) {
    popularity[order[place]] = 1.0 / static_cast<double>(place + 1);
  }
  return popularity;
}

// Weighted draw without replacement (Efraimidis and Spirakis): the largest log(u) / popularity.
void zipf_ids(std::span<double const> popularity, RandomRow const& random, Ids ids) {
  std::vector<double> keys(popularity.size());
  std::vector<std::int32_t> candidates(popularity.size());
  std::iota(candidates.begin(), candidates.end(), 0);
  for (std::size_t e = 0; e < keys.size(); ++e) keys[e] = std::log(random.uniform(e)) / popularity[e];
  write_best(keys, candidates, ids);
}

void all_to_one_ids(Problem const& problem, Ids ids) {
  int const local = experts_of(problem, 0).count();
  for (std::size_t k = 0; k < ids.size(); ++k) {
    ids[k] = static_cast<int>(k) < local ? static_cast<std::int32_t>(k) : -1;
  }
}

void require_valid_row(Problem const& problem, std::span<std::int64_t const> ids, std::int64_t row) {
  for (std::size_t k = 0; k < ids.size(); ++k) {
    require(ids[k] >= -1 && ids[k] < problem.experts, "recorded routing, token {}, slot {}: id {} is not in -1..{}",
            row, k, ids[k], problem.experts - 1);
    auto const before = ids.first(k);
    require(ids[k] == -1 || std::find(before.begin(), before.end(), ids[k]) == before.end(),
            "recorded routing, token {}, slot {}: expert {} is named twice", row, k, ids[k]);
  }
}

RoutingTable replay(Problem const& problem, IdTable const& recorded) {
  require(recorded.columns == problem.top_k, "recorded routing: {} ids a token, but top_k is {} (pass --top-k {})",
          recorded.columns, problem.top_k, recorded.columns);
  auto const width = static_cast<std::size_t>(recorded.columns);
  auto const row_of = [&](std::int64_t row) {
    return std::span(recorded.ids).subspan(static_cast<std::size_t>(row) * width, width);
  };
  for (std::int64_t row = 0; row < recorded.rows; ++row) require_valid_row(problem, row_of(row), row);
  RoutingTable table(problem.ranks, problem.tokens, problem.top_k);
  for (int rank = 0; rank < problem.ranks; ++rank) {
    for (std::int64_t t = 0; t < problem.tokens; ++t) {
      auto const from = row_of((rank * problem.tokens + t) % recorded.rows);
      std::transform(from.begin(), from.end(), table.token(rank, t).begin(),
                     [](std::int64_t id) { return static_cast<std::int32_t>(id); });
    }
  }
  return table;
}

}  // namespace

RoutingTable make_routing(Problem const& problem, RoutingKind kind, IdTable const& recorded) {
  if (kind == RoutingKind::replay) return replay(problem, recorded);
  RoutingTable table(problem.ranks, problem.tokens, problem.top_k);
  auto const popularity = kind == RoutingKind::zipf ? zipf_popularity(problem) : std::vector<double>{};
  for (int rank = 0; rank < problem.ranks; ++rank) {
    for (std::int64_t t = 0; t < problem.tokens; ++t) {
      RandomRow const random(problem.seed, Purpose::routing, static_cast<std::uint64_t>(rank),
                             static_cast<std::uint64_t>(t));
      Ids const ids = table.token(rank, t);
      switch (kind) {
        case RoutingKind::uniform: uniform_ids(problem, random, ids); break;
        case RoutingKind::group_limited: group_limited_ids(problem, random, ids); break;
        case RoutingKind::zipf: zipf_ids(popularity, random, ids); break;
        case RoutingKind::all_to_one: all_to_one_ids(problem, ids); break;
        case RoutingKind::replay: break;
      }
    }
  }
  return table;
}

}  // namespace switchyard::oracle
