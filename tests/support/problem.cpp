#include "support/problem.hpp"

#include <algorithm>
#include <numeric>

#include "oracle/expected.hpp"
#include "oracle/numbers.hpp"

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

Random output_random(Problem const& p, int maker, oracle::Row const& row, std::uint64_t what) {
  return Random(mix(mix(p.the.seed, static_cast<std::uint64_t>(maker), row.source), what,
                    static_cast<std::uint64_t>(row.token), row.slot + 1));
}

}  // namespace

void fill_random(DType dtype, std::span<std::byte> out, Random& random) {
  for (std::size_t i = 0; i < out.size() / size_of(dtype); ++i) {
    if (dtype == DType::f8e4m3 || dtype == DType::u8) {
      out[i] = static_cast<std::byte>(random.bits());
    } else {
      oracle::put(out.data(), dtype, i, random.real());
    }
  }
}

std::vector<std::byte> random_values(DType dtype, std::int64_t count, Random& random) {
  std::vector<std::byte> values(index(count) * size_of(dtype));
  fill_random(dtype, values, random);
  return values;
}

std::vector<float> random_floats(std::int64_t count, Random& random) {
  std::vector<float> values(index(count));
  for (float& value : values) value = random.real();
  return values;
}

oracle::TokenBytes Problem::token(oracle::TokenKey const& key) const {
  RankInput const& input = inputs[index(key.rank)];
  std::size_t const bytes = index(the.hidden) * size_of(the.dtype);
  auto const x = std::span(input.x).subspan(index(key.token) * bytes, bytes);
  oracle::TokenBytes out{{x.begin(), x.end()}, {}};
  if (the.dtype != DType::f8e4m3) return out;
  auto const scales = std::span(input.scales).subspan(index(key.token * the.groups()), index(the.groups()));
  auto const scale_bytes = std::as_bytes(scales);
  out.scales.assign(scale_bytes.begin(), scale_bytes.end());
  return out;
}

std::vector<float> Problem::weights(oracle::TokenKey const& key) const {
  auto const row =
      std::span(inputs[index(key.rank)].weights).subspan(index(key.token * the.top_k), index(the.top_k));
  return {row.begin(), row.end()};
}

void Problem::fill_output(int maker, oracle::Row const& row, std::span<std::byte> out) const {
  Random random = output_random(*this, maker, row, 1);
  fill_random(the.combine_dtype, out, random);
}

float Problem::row_weight(int maker, oracle::Row const& row) const {
  return output_random(*this, maker, row, 2).real();
}

float Problem::gradient(int maker, oracle::Row const& row, int slot) const {
  return output_random(*this, maker, row, 3 + static_cast<std::uint64_t>(slot)).real();
}

void Problem::fill_bias(int which, oracle::TokenKey const& key, std::span<std::byte> out) const {
  Random random(mix(the.seed, static_cast<std::uint64_t>(key.rank), 1000 + which, key.token));
  fill_random(the.combine_dtype, out, random);
}

std::int64_t worst_rows(Problem const& p) {
  if (p.the.worst_rows > 0) return p.the.worst_rows;
  std::int64_t most = 0;
  for (int rank = 0; rank < p.the.ranks; ++rank)
    most = std::max(most, std::ssize(received_rows(terms_of(p.the), p, rank, p.the.alignment)));
  return most + 3;
}

Problem make_problem(Case const& c) {
  Problem problem;
  problem.the = c;
  for (int rank = 0; rank < c.ranks; ++rank) problem.inputs.push_back(make_input(c, rank));
  return problem;
}

}  // namespace switchyard::test
