#include "support/problem.hpp"

#include <algorithm>
#include <numeric>

#include "support/numbers.hpp"

namespace switchyard::test {
namespace {

std::int64_t tokens_of(Case const& c, int rank, Random& random) {
  switch (c.counts) {
    case Tokens::equal: return c.tokens;
    case Tokens::varied: return rank == 0 ? c.tokens : random.below(c.tokens + 1);
    case Tokens::first_only: return rank == 0 ? c.tokens : 0;
    case Tokens::last_none: return rank == c.ranks - 1 ? 0 : c.tokens;
    case Tokens::all_none: return 0;
  }
  return 0;
}

// Distinct ids in random order; -1 once the experts run out.
void choose_distinct(std::int64_t* ids, Case const& c, Random& random) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(c.experts));
  std::iota(all.begin(), all.end(), 0);
  for (int k = 0; k < c.top_k; ++k) {
    ids[k] = -1;
    if (k >= c.experts) continue;
    std::swap(all[index(k)], all[index(k + random.below(c.experts - k))]);
    ids[k] = all[index(k)];
  }
}

void choose_ids(std::int64_t* ids, Case const& c, Random& random) {
  choose_distinct(ids, c, random);
  for (int k = 0; k < c.top_k; ++k) {
    switch (c.routing) {
      case Routing::uniform: break;
      case Routing::skewed:  // the upper half of the experts gets almost nothing
        if (ids[k] >= (c.experts + 1) / 2 && random.chance(80)) ids[k] = -1;
        break;
      case Routing::one_expert: ids[k] = k == c.top_k - 1 ? 0 : -1; break;
      case Routing::sparse:
        if (random.chance(60)) ids[k] = -1;
        break;
      case Routing::none: ids[k] = -1; break;
      case Routing::repeated: ids[k] = random.below(std::min(c.experts, 3)); break;
    }
  }
}

RankInput make_input(Case const& c, int rank) {
  Random random(mix(c.seed, static_cast<std::uint64_t>(rank), 17));
  RankInput input;
  std::int64_t const n = input.tokens = tokens_of(c, rank, random);
  input.x = random_values(c.dtype, n * c.hidden, random);
  if (c.dtype == DType::f8e4m3) input.scales = random_floats(n * c.groups(), random);
  input.ids.assign(index(n * c.top_k), -1);
  input.weights = random_floats(n * c.top_k, random);
  if (c.by_rank) input.ranks.resize(index(n * c.ranks));
  for (std::uint8_t& hit : input.ranks) hit = random.chance(40) ? 1 : 0;
  for (std::int64_t t = 0; t < n && !c.by_rank; ++t) choose_ids(&input.ids[index(t * c.top_k)], c, random);
  return input;
}

}  // namespace

std::vector<std::byte> random_values(DType dtype, std::int64_t count, Random& random) {
  std::vector<std::byte> values(index(count) * size_of(dtype));
  for (std::size_t i = 0; i < index(count); ++i) {
    if (dtype == DType::f8e4m3 || dtype == DType::u8) {
      values[i] = static_cast<std::byte>(random.bits());
    } else {
      put(values.data(), dtype, i, random.real());
    }
  }
  return values;
}

std::vector<float> random_floats(std::int64_t count, Random& random) {
  std::vector<float> values(index(count));
  for (float& value : values) value = random.real();
  return values;
}

Problem make_problem(Case const& c) {
  Problem problem{c, {}};
  for (int rank = 0; rank < c.ranks; ++rank) problem.inputs.push_back(make_input(c, rank));
  return problem;
}

}  // namespace switchyard::test
