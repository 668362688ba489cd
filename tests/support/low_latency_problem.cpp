#include "support/low_latency_problem.hpp"

#include <cmath>
#include <cstring>

#include "support/low_latency_reference.hpp"
#include "support/numbers.hpp"

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
    float const value = get(row, dtype, index(h));
    put(row, dtype, index(h), zero ? 0.0F : value * power);
  }
  if (zero || !random.chance(30)) return;
  float const edge = 448.0F * std::ldexp(1.0F, random.between(-4, 5));
  put(row, dtype, index(begin + random.below(end - begin)), random.chance(50) ? edge : -edge);
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

}  // namespace

SlotProblem make_slot_problem(SlotCase const& c) {
  SlotProblem p{c, make_problem(plain_case(c)), {}, {}};
  for (int rank = 0; rank < c.ranks; ++rank) {
    Random random(mix(c.seed, static_cast<std::uint64_t>(rank), 4242));
    RankInput& input = p.base.inputs[index(rank)];
    if (c.cast != SendCast::none) spread_values(c, input, random);
    p.scales.push_back(make_scales(c, input, random));
    auto& sent = p.sent.emplace_back();
    for (std::int64_t t = 0; t < input.tokens; ++t) sent.push_back(token_as_sent(p, rank, t));
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

}  // namespace switchyard::test
