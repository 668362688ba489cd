#include "oracle/payload.hpp"

#include <bit>
#include <cstring>

#include "oracle/fp8_reference.hpp"
#include "oracle/random.hpp"

namespace switchyard::cli {

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

void fill_received(Problem const& problem, TokenKey const& key, ReceivedToken& token) {
  auto const hidden = static_cast<std::size_t>(problem.hidden);
  token.row.resize(hidden * size_of(problem.received_dtype()));
  token.scales.resize(problem.sends_fp8() ? static_cast<std::size_t>(problem.scale_groups()) : 0);
  if (problem.payload != Payload::fp8_cast) {
    fill_token(problem, key, token.row);
    fill_scales(problem, key, token.scales);
    return;
  }
  std::vector<std::uint16_t> source(hidden);
  fill_token(problem, key, std::as_writable_bytes(std::span(source)));
  cast_reference(source, token.row, token.scales);
}

void fill_expert_output(Problem const& problem, OutputKey const& key, std::span<std::uint16_t> row) {
  auto const maker = static_cast<std::uint64_t>(key.maker) << 32U | static_cast<std::uint32_t>(key.expert);
  RandomRow const random(problem.seed ^ mix(maker), Purpose::expert_output,
                         static_cast<std::uint64_t>(key.token.rank), static_cast<std::uint64_t>(key.token.token));
  fill(random, bf16_pattern, std::as_writable_bytes(row));
}

float bf16_to_float(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

std::uint16_t float_to_bf16(float value) noexcept {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

}  // namespace switchyard::cli
