#include "support/low_latency_reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "support/numbers.hpp"

namespace switchyard::test {
namespace {

// The exponent of the smallest power of two that is not below amax / 448.
int exponent_of_scale(float amax) {
  int exponent = -126;
  while (std::ldexp(448.0, exponent) < static_cast<double>(amax)) ++exponent;
  return exponent;
}

float largest_of(std::byte const* row, DType dtype, std::int64_t begin, std::int64_t end) {
  float amax = 1e-4F;
  for (std::int64_t h = begin; h < end; ++h) amax = std::max(amax, std::fabs(get(row, dtype, index(h))));
  return amax;
}

SentToken cast_to_powers(std::byte const* row, SlotCase const& c) {
  bool const as_exponents = c.cast == SendCast::fp8_ue8m0;
  SentToken out{std::vector<std::byte>(index(c.hidden)), {}};
  for (std::int64_t begin = 0; begin < c.hidden; begin += 128) {
    std::int64_t const end = std::min(c.hidden, begin + 128);
    int const exponent = exponent_of_scale(largest_of(row, c.dtype, begin, end));
    for (std::int64_t h = begin; h < end; ++h)
      put(out.x.data(), DType::f8e4m3, index(h), std::ldexp(get(row, c.dtype, index(h)), -exponent));
    float const scale = std::ldexp(1.0F, exponent);
    auto const byte = static_cast<std::byte>(exponent + 127);
    auto const* const at = as_exponents ? &byte : reinterpret_cast<std::byte const*>(&scale);
    out.scales.insert(out.scales.end(), at, at + (as_exponents ? 1 : sizeof scale));
  }
  return out;
}

SentToken cast_to_f32_scales(std::byte const* row, SlotProblem const& p) {
  TokenData const cast = cast_by_definition(row, p.base.the);
  SentToken out{cast.x, std::vector<std::byte>(cast.scales.size() * sizeof(float))};
  std::memcpy(out.scales.data(), cast.scales.data(), out.scales.size());
  return out;
}

bool has_any(SlotProblem const& p, int source, std::int64_t token, ExpertRange range) {
  std::int64_t const* const ids = ids_of(p.base, source, token);
  return std::any_of(ids, ids + p.the.top_k, [range](std::int64_t id) { return range.holds(id); });
}

std::vector<std::int64_t> tokens_with(SlotProblem const& p, int source, ExpertRange range) {
  std::vector<std::int64_t> tokens;
  for (std::int64_t t = 0; t < p.tokens(source); ++t) {
    if (has_any(p, source, t, range)) tokens.push_back(t);
  }
  return tokens;
}

}  // namespace

std::vector<std::int64_t> tokens_for_expert(SlotProblem const& p, int source, std::int64_t expert) {
  return tokens_with(p, source, {expert, expert + 1});
}

std::vector<std::int64_t> tokens_for_rank(SlotProblem const& p, int source, int receiver) {
  return tokens_with(p, source, experts_of(p.base.the, receiver));
}

SentToken token_as_sent(SlotProblem const& p, int source, std::int64_t token) {
  RankInput const& input = p.input(source);
  std::size_t const bytes = index(p.the.width()) * size_of(p.the.dtype);
  std::byte const* const row = input.x.data() + index(token) * bytes;
  if (p.the.cast == SendCast::fp8) return cast_to_f32_scales(row, p);
  if (p.the.cast != SendCast::none) return cast_to_powers(row, p.the);
  std::vector<std::byte> const& all = p.scales[index(source)];
  std::size_t const scale_bytes = p.the.scaled() ? index(p.the.scale_width()) * size_of(p.the.scale_dtype()) : 0;
  std::byte const* const scales = all.data() + index(token) * scale_bytes;
  return {{row, row + bytes}, {scales, scales + scale_bytes}};
}

std::vector<std::byte> slot_output(SlotProblem const& p, std::int64_t maker, int source, std::int64_t token) {
  if (p.the.identity) return p.sent[index(source)][index(token)].x;
  Random random(mix(mix(p.the.seed, static_cast<std::uint64_t>(maker), source), 91, token));
  std::vector<std::byte> row(index(p.the.hidden) * size_of(p.the.combine_dtype));
  for (std::size_t h = 0; h < index(p.the.hidden); ++h) {
    float const value = random.real();
    put(row.data(), p.the.combine_dtype, h, value == 0.0F ? 1.0F : value);
  }
  return row;
}

std::vector<SlotPart> slot_parts(SlotProblem const& p, int rank, std::int64_t token) {
  std::vector<SlotPart> parts;
  Case const& c = p.base.the;
  for (int k = 0; k < c.top_k && p.the.by_expert(); ++k) {
    std::int64_t const id = ids_of(p.base, rank, token)[k];
    float const weight = p.the.weights ? p.input(rank).weights[index(token * c.top_k + k)] : 1.0F;
    if (id >= 0) parts.push_back({owner_of(c, id), id, weight});
  }
  for (int owner = 0; owner < c.ranks && !p.the.by_expert(); ++owner) {
    if (has_any(p, rank, token, experts_of(c, owner))) parts.push_back({owner, owner, 1.0F});
  }
  return parts;
}

std::vector<float> slot_sum(SlotProblem const& p, int rank, std::int64_t token, Peers const& peers) {
  std::vector<float> sum(index(p.the.hidden), 0.0F);
  for (SlotPart const& part : slot_parts(p, rank, token)) {
    if (presence(peers, part.owner) != Presence::here) continue;
    std::vector<std::byte> const values = slot_output(p, part.maker, rank, token);
    for (std::size_t h = 0; h < sum.size(); ++h) {
      float const product = get(values.data(), p.the.combine_dtype, h) * part.weight;
      sum[h] = sum[h] + product;
    }
  }
  return sum;
}

std::vector<std::byte> combined_row(SlotProblem const& p, int rank, std::int64_t token, Peers const& peers) {
  std::vector<float> const sum = slot_sum(p, rank, token, peers);
  std::vector<std::byte> row(sum.size() * size_of(p.the.combine_dtype));
  for (std::size_t h = 0; h < sum.size(); ++h) put(row.data(), p.the.combine_dtype, h, sum[h]);
  return row;
}

}  // namespace switchyard::test
