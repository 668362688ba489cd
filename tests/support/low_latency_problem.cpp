#include "support/low_latency_problem.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "oracle/numbers.hpp"

namespace switchyard::test {
namespace {

// What the reference of throughput mode knows of the case, too.
Case plain_case(SlotCase const& c) {
  return {.ranks = c.ranks,
          .tokens = c.tokens,
          .counts = c.counts,
          .hidden = c.width(),
          .experts = c.experts,
          .top_k = c.top_k,
          .routing = c.routing,
          .dtype = c.dtype,
          .combine_dtype = c.combine_dtype,
          .seed = c.seed};
}

// Casts differ in their scales: groups of any magnitude, some all zero, some whose largest value is the
// largest of e4m3 times a power of two, where a scale is exact.
void spread_group(std::byte* row, DType dtype, std::int64_t begin, std::int64_t end, Random& random) {
  float const power = std::ldexp(1.0F, random.between(-6, 5));
  bool const zero = random.chance(5);
  for (std::int64_t h = begin; h < end; ++h) {
    float const value = oracle::get(row, dtype, index(h));
    oracle::put(row, dtype, index(h), zero ? 0.0F : value * power);
  }
  if (zero || !random.chance(30)) return;
  float const edge = 448.0F * std::ldexp(1.0F, random.between(-4, 5));
  oracle::put(row, dtype, index(begin + random.below(end - begin)), random.chance(50) ? edge : -edge);
}

void spread_values(SlotCase const& c, RankInput& input, Random& random) {
  for (std::int64_t t = 0; t < input.tokens; ++t) {
    std::byte* const row = input.x.data() + index(t * c.hidden) * size_of(c.dtype);
    for (std::int64_t h = 0; h < c.hidden; h += 128)
      spread_group(row, c.dtype, h, std::min(c.hidden, h + 128), random);
  }
}

std::vector<std::byte> make_scales(SlotCase const& c, RankInput const& input, Random& random) {
  if (c.opaque()) return random_values(DType::u8, input.tokens * c.scale_bytes, random);
  std::vector<std::byte> bytes(input.scales.size() * sizeof(float));
  if (!bytes.empty()) std::memcpy(bytes.data(), input.scales.data(), bytes.size());
  return bytes;
}

// A rank may send as many rows to an expert as it may have tokens.
void leave_out_too_many(SlotCase const& c, RankInput& input) {
  std::vector<std::int64_t> rows(index(c.experts), 0);
  for (std::int64_t& id : input.ids) {
    if (id >= 0 && ++rows[index(id)] > c.tokens) id = -1;
  }
}

}  // namespace

oracle::TokenBytes SlotProblem::token(oracle::TokenKey const& key) const {
  oracle::TokenBytes out{base.token(key).x, {}};
  if (!the.scaled() || the.cast != SendCast::none) return out;
  std::size_t const bytes = index(the.scale_width()) * size_of(the.scale_dtype());
  auto const row = std::span(scales[index(key.rank)]).subspan(index(key.token) * bytes, bytes);
  out.scales.assign(row.begin(), row.end());
  return out;
}

void SlotProblem::fill_output(int maker, oracle::Row const& row, std::span<std::byte> out) const {
  if (the.identity) return static_cast<void>(std::ranges::copy(token(row.key()).x, out.begin()));
  Random random(
      mix(mix(the.seed, static_cast<std::uint64_t>(maker), row.source), 91, row.token, row.expert, row.slot + 1));
  for (std::size_t h = 0; h < index(the.hidden); ++h) {
    float const value = random.real();
    oracle::put(out.data(), the.combine_dtype, h, value == 0.0F ? 1.0F : value);
  }
}

SlotProblem make_slot_problem(SlotCase const& c) {
  SlotProblem p;
  p.the = c;
  p.base = make_problem(plain_case(c));
  for (int rank = 0; rank < c.ranks; ++rank) {
    Random random(mix(c.seed, static_cast<std::uint64_t>(rank), 4242));
    RankInput& input = p.base.inputs[index(rank)];
    if (c.by_expert()) leave_out_too_many(c, input);
    if (c.cast != SendCast::none) spread_values(c, input, random);
    p.scales.push_back(make_scales(c, input, random));
  }
  return p;
}

std::vector<SlotProblem> make_slot_problems(SlotCase c, int count) {
  std::vector<SlotProblem> problems;
  for (int i = 0; i < count; ++i) {
    problems.push_back(make_slot_problem(c));
    c.seed = mix(c.seed, 77);
  }
  return problems;
}

std::vector<std::byte> outputs_of(SlotChecker const& checker, SlotProblem const& p,
                                  LowLatencyReceived const& seen) {
  std::size_t const row_bytes = index(p.the.hidden) * size_of(p.the.combine_dtype);
  std::vector<std::byte> rows(index(seen.x.size(0) * seen.x.size(1)) * row_bytes, std::byte{0xff});
  checker.for_each_output(seen, [&](std::int64_t slot, std::span<std::byte const> row) {
    std::memcpy(rows.data() + index(slot) * row_bytes, row.data(), row_bytes);
  });
  return rows;
}

}  // namespace switchyard::test
