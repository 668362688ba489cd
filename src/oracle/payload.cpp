#include "oracle/payload.hpp"

#include <cstring>

#include "oracle/random.hpp"

namespace switchyard::oracle {

namespace {

// Which bits of a random 64-bit word stay, and which are set, to make elements of a type.
struct Pattern {
  std::uint64_t keep = ~std::uint64_t{0};
  std::uint64_t set = 0;
};

constexpr Pattern every_bit{};
constexpr Pattern bf16_pattern{.keep = 0x83ff83ff83ff83ffU, .set = 0x3c003c003c003c00U};
constexpr Pattern f16_pattern{.keep = 0x8fff8fff8fff8fffU, .set = 0x3000300030003000U};
constexpr Pattern f32_pattern{.keep = 0x83ffffff83ffffffU, .set = 0x3c0000003c000000U};
constexpr Pattern positive_f32_pattern{.keep = 0x03ffffff03ffffffU, .set = 0x3c0000003c000000U};

Pattern pattern_of(DType dtype) {
  switch (dtype) {
    case DType::bf16: return bf16_pattern;
    case DType::f16: return f16_pattern;
    case DType::f32: return f32_pattern;
    default: return every_bit;
  }
}

void fill(RandomRow const& random, Pattern pattern, std::span<std::byte> out) {
  std::size_t const words = out.size() / 8;
  for (std::size_t i = 0; i < words; ++i) {
    std::uint64_t const word = (random.word(i) & pattern.keep) | pattern.set;
    std::memcpy(out.data() + i * 8, &word, 8);
  }
  std::uint64_t const last = (random.word(words) & pattern.keep) | pattern.set;
  if (out.size() % 8 != 0) std::memcpy(out.data() + words * 8, &last, out.size() % 8);
}

RandomRow row_of(Problem const& problem, Purpose purpose, TokenKey const& key) {
  return {problem.seed, purpose, static_cast<std::uint64_t>(key.rank), static_cast<std::uint64_t>(key.token)};
}

}  // namespace

void fill_token(Problem const& problem, TokenKey const& key, std::span<std::byte> row) {
  fill(row_of(problem, Purpose::activation, key), pattern_of(problem.input_dtype()), row);
}

void fill_scales(Problem const& problem, TokenKey const& key, std::span<float> scales) {
  fill(row_of(problem, Purpose::scale, key), positive_f32_pattern, std::as_writable_bytes(scales));
}

void fill_weights(Problem const& problem, TokenKey const& key, std::span<float> weights) {
  fill(row_of(problem, Purpose::weight, key), positive_f32_pattern, std::as_writable_bytes(weights));
}

void fill_expert_output(Problem const& problem, int maker, Row const& row, std::span<std::byte> out) {
  auto const who = static_cast<std::uint64_t>(maker) << 32U | static_cast<std::uint32_t>(row.expert);
  RandomRow const random(problem.seed ^ mix(who), Purpose::expert_output, static_cast<std::uint64_t>(row.source),
                         static_cast<std::uint64_t>(row.token));
  fill(random, bf16_pattern, out);
}

TokenBytes SeededData::token(TokenKey const& key) const {
  TokenBytes token;
  token.x.resize(static_cast<std::size_t>(problem_.hidden) * size_of(problem_.input_dtype()));
  fill_token(problem_, key, token.x);
  if (problem_.payload != Payload::fp8) return token;
  std::vector<float> scales(static_cast<std::size_t>(problem_.scale_groups()));
  fill_scales(problem_, key, scales);
  auto const bytes = std::as_bytes(std::span(scales));
  token.scales.assign(bytes.begin(), bytes.end());
  return token;
}

std::vector<float> SeededData::weights(TokenKey const& key) const {
  std::vector<float> weights(static_cast<std::size_t>(problem_.top_k));
  fill_weights(problem_, key, weights);
  return weights;
}

}  // namespace switchyard::oracle
