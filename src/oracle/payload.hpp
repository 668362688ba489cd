// The data of a benchmark: what every token, scale, weight and expert output is, as a function of the seed and
// of its place. Inputs are filled with it, and what arrives is compared with it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "oracle/problem.hpp"

namespace switchyard::cli {

struct TokenKey {
  int rank = 0;
  std::int64_t token = 0;
};

// The token's elements as the caller of dispatch holds them. fp8 takes all 256 bit patterns; the others are
// finite, of either sign, and of a magnitude from 2^-7 (f16: 2^-3) to below 2^1.
void fill_token(Problem const& problem, TokenKey const& key, std::span<std::byte> row);
// Scales given by the caller (Payload::fp8).
void fill_scales(Problem const& problem, TokenKey const& key, std::span<float> scales);
void fill_weights(Problem const& problem, TokenKey const& key, std::span<float> weights);

// What arrives: the token itself, or after Payload::fp8_cast the cast token with its scales.
struct ReceivedToken {
  std::vector<std::byte> row;
  std::vector<float> scales;  // empty without fp8
};
void fill_received(Problem const& problem, TokenKey const& key, ReceivedToken& token);

// Which expert (local id; -1 in the flat layout, where a rank answers for all its experts) of which rank made
// the row, for which token.
struct OutputKey {
  int maker = 0;
  int expert = -1;
  TokenKey token{};
};
// A row of expert output in bf16. Magnitudes are 2^-7 to 2^1, so that the sum of up to 64 rows is exact in f32:
// the expected result does not depend on the order of the sum.
void fill_expert_output(Problem const& problem, OutputKey const& key, std::span<std::uint16_t> row);

float bf16_to_float(std::uint16_t bits) noexcept;
// To nearest even; for finite values.
std::uint16_t float_to_bf16(float value) noexcept;

}  // namespace switchyard::cli
