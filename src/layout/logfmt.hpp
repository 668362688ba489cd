// LogFMT-10 codes a value as a sign and the number of a level. Levels are evenly spaced in the logarithm between
// the least and the greatest magnitude of 128 channels. It follows the LogFMT-nBit section of "Insights into
// DeepSeek-V3" (arXiv 2505.09343). docs/low-latency.md has the format.
//
// Both engines run this code and get the same bits, since every operation rounds on its own. It is always inlined,
// because the CPU engine compiles it for each instruction set.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "layout/receive_block.hpp"

namespace switchyard {

inline constexpr int logfmt_tile = 128;    // channels of a tile
inline constexpr int logfmt_quad = 4;      // adjacent channels that are coded together, by one lane of a GPU
inline constexpr int logfmt_levels = 511;  // codes 1 to 511; 0 is zero
inline constexpr float logfmt_reach = 32;  // binades below the greatest magnitude that levels go down to
inline constexpr std::size_t logfmt_tile_bytes = logfmt_tile * 10 / 8;
inline constexpr std::size_t logfmt_high_at = logfmt_tile;  // where the high bits begin in a tile's bytes

// What is stored for a tile, in binary logarithms: the lowest level, and the step from one level to the next. A
// tile that had an infinity or a NaN has a NaN for `min`, and decodes to NaN in all channels.
struct LogfmtScale {
  float min = 0;
  float step = 0;
};
static_assert(sizeof(LogfmtScale) == 8);

constexpr std::size_t logfmt_tiles(std::size_t hidden) noexcept {
  return (hidden + logfmt_tile - 1) / logfmt_tile;
}
// Scales of a row come after the codes of all its tiles.
constexpr std::size_t logfmt_scales_at(std::size_t hidden) noexcept {
  return logfmt_tiles(hidden) * logfmt_tile_bytes;
}
constexpr std::size_t logfmt_row_bytes(std::size_t hidden) noexcept {
  return align_up(logfmt_scales_at(hidden) + logfmt_tiles(hidden) * sizeof(LogfmtScale), 16);
}

namespace logfmt {

// nvcc would fuse a product and a sum that follow one another, and round once. (An option keeps the host's compiler
// from that.)
[[gnu::always_inline]] constexpr float mul(float a, float b) noexcept {
#if defined(__CUDA_ARCH__)
  if (!std::is_constant_evaluated()) return __fmul_rn(a, b);
#endif
  return a * b;
}

[[gnu::always_inline]] constexpr float add(float a, float b) noexcept {
#if defined(__CUDA_ARCH__)
  if (!std::is_constant_evaluated()) return __fadd_rn(a, b);
#endif
  return a + b;
}

template <int N>
[[gnu::always_inline]] constexpr float polynomial(float const (&coefficients)[N], float x) noexcept {
  float sum = coefficients[N - 1];
  for (int i = N - 2; i >= 0; --i) sum = add(mul(sum, x), coefficients[i]);
  return sum;
}

inline constexpr std::uint32_t infinity_bits = 0x7f800000;
inline constexpr std::uint32_t least_normal_bits = 0x00800000;

[[gnu::always_inline]] constexpr std::uint32_t magnitude_bits(float x) noexcept {
  return std::bit_cast<std::uint32_t>(x) & 0x7fffffffU;
}

// log2 of a positive finite magnitude, to 4e-7 and one rounding; exact for powers of two. For other bits the result
// is finite, and means nothing.
[[gnu::always_inline]] constexpr float log2(std::uint32_t bits) noexcept {
  // Minimax for log2(1 + f) / f, for 1 + f from sqrt(1/2) to sqrt(2).
  constexpr float coefficients[] = {1.44269967F,  -0.721375883F, 0.480464995F, -0.35896188F,
                                    0.297262937F, -0.272697777F, 0.170632988F};
  constexpr std::uint32_t root_half_bits = 0x3f3504f3;
  bool const normal = bits >= least_normal_bits;
  // A denormal counts steps of 2^-149.
  std::uint32_t const scaled =
      normal ? bits : std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(bits)));
  auto const exponent = static_cast<std::int32_t>(scaled - root_half_bits) >> 23;
  float const f = add(std::bit_cast<float>(scaled - (static_cast<std::uint32_t>(exponent) << 23U)), -1.0F);
  float const whole = static_cast<float>(normal ? exponent : exponent - 149);
  return add(whole, mul(f, polynomial(coefficients, f)));
}

[[gnu::always_inline]] constexpr float power_of_two(std::int32_t exponent) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23U);
}

// 2^y for y from -150, to 2e-7 of it and one rounding; exact for whole numbers. Never infinite.
[[gnu::always_inline]] constexpr float exp2(float y) noexcept {
  // Minimax for (2^f - 1) / f, for f from -1/2 to 1/2.
  constexpr float coefficients[] = {0.693147004F, 0.240222424F, 0.0555073358F, 0.00967151299F, 0.00132647238F};
  constexpr float below_overflow = 127.99999F;
  constexpr float rounder = 0x1.8p23F;  // added, it pushes out what comes after the point
  float const limited = y < below_overflow ? y : below_overflow;
  float const rounded = add(limited, rounder);
  auto const whole = std::bit_cast<std::int32_t>(rounded) - std::bit_cast<std::int32_t>(rounder);
  float const f = add(limited, -add(rounded, -rounder));
  float const fraction = add(1.0F, mul(f, polynomial(coefficients, f)));
  // The multiplication takes two steps, so that the result may be denormal, or above what a factor can be.
  std::int32_t const half = whole >> 1;
  return mul(mul(fraction, power_of_two(half)), power_of_two(whole - half));
}

}  // namespace logfmt

// The greatest magnitude of a tile, and the least that is not 0, as bits of floats: these order as the magnitudes
// do.
struct LogfmtRange {
  std::uint32_t greatest = 0;
  std::uint32_t least = ~std::uint32_t{0};

  [[gnu::always_inline]] constexpr void add(float x) noexcept {
    std::uint32_t const bits = logfmt::magnitude_bits(x);
    greatest = bits > greatest ? bits : greatest;
    std::uint32_t const counted = bits == 0 ? ~std::uint32_t{0} : bits;
    least = counted < least ? counted : least;
  }
};

// What it takes to code the values of a tile.
struct LogfmtEncoder {
  LogfmtScale scale{};
  float origin = 0;   // the lowest level
  float density = 0;  // levels in a binade
  // Added to (logarithm - origin) * density, it gives the code after cutting off: the first code is 1, and the
  // upper of two levels is taken from the middle between their values on.
  float bias = 1;
  float vanishing = 0;  // below this logarithm zero is nearer than the lowest level
};

[[gnu::always_inline]] constexpr LogfmtEncoder logfmt_encoder(LogfmtRange const& range) noexcept {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  LogfmtEncoder encoder;
  if (range.greatest == 0) return encoder;
  if (range.greatest >= logfmt::infinity_bits) {
    encoder.scale.min = nan;
    return encoder;
  }
  float const max = logfmt::log2(range.greatest);
  float const least = logfmt::log2(range.least);
  float const floor = logfmt::add(max, -logfmt_reach);
  float const min = least > floor ? least : floor;
  float const span = logfmt::add(max, -min);
  float const step = span > 0 ? span / (logfmt_levels - 1) : 0.0F;
  // The middle between the values 1 and 2^step lies log2((1 + 2^step) / 2) above the lower one: of a step, that is
  // 1/2 + step * ln 2 / 8, and terms of step^3, which are below the rounding of a code.
  constexpr float eighth_of_ln2 = 0.0866433978F;
  encoder.scale = {.min = min, .step = step};
  encoder.origin = min;
  encoder.density = span > 0 ? (logfmt_levels - 1) / span : 0.0F;
  encoder.bias = logfmt::add(1.5F, -logfmt::mul(step, eighth_of_ln2));
  encoder.vanishing = logfmt::add(min, -1.0F);
  return encoder;
}

// The codes of four adjacent channels. The bytes of a word hold the low 8 bits of each level; pairs of bits in a
// byte hold the 9th bit, and the sign above it. The first channel has the lowest bits.
struct LogfmtQuad {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
};

[[gnu::always_inline]] constexpr std::uint32_t logfmt_level(LogfmtEncoder const& encoder, float x) noexcept {
  std::uint32_t const bits = logfmt::magnitude_bits(x);
  float const log = logfmt::log2(bits);
  float const place = logfmt::add(logfmt::mul(logfmt::add(log, -encoder.origin), encoder.density), encoder.bias);
  constexpr auto last = static_cast<float>(logfmt_levels);
  float const limited = place < 1.0F ? 1.0F : place > last ? last : place;
  bool const zero = bits == 0;
  bool const vanishes = log < encoder.vanishing;
  return (zero | vanishes) ? 0U : static_cast<std::uint32_t>(static_cast<std::int32_t>(limited));
}

// The level with the sign above it: 10 bits.
[[gnu::always_inline]] constexpr std::uint32_t logfmt_code(LogfmtEncoder const& encoder, float x) noexcept {
  return logfmt_level(encoder, x) | (std::bit_cast<std::uint32_t>(x) >> 31U) << 9U;
}

constexpr LogfmtQuad logfmt_encode(LogfmtEncoder const& encoder, float const (&x)[logfmt_quad]) noexcept {
  LogfmtQuad quad;
  for (std::uint32_t i = 0; i < logfmt_quad; ++i) {
    std::uint32_t const code = logfmt_code(encoder, x[i]);
    quad.low |= (code & 0xffU) << (8 * i);
    quad.high |= code >> 8U << (2 * i);
  }
  return quad;
}

// The value differs from what was encoded by at most tanh(step * ln 2 / 2) of it (0.35 * step: 2.2 % for a tile of
// 32 binades, 0.7 % for one of 10), and by another 2^-15, because logarithms are rounded to floats. Below the
// lowest level it differs by at most half of that level.
[[gnu::always_inline]] constexpr float logfmt_value(LogfmtScale const& scale, std::uint32_t code) noexcept {
  bool const void_tile = scale.min != scale.min;
  auto const level = static_cast<std::int32_t>(code & 0x1ffU);
  float const log = logfmt::add(scale.min, logfmt::mul(scale.step, static_cast<float>(level - 1)));
  float const magnitude = logfmt::exp2(void_tile ? 0.0F : log);
  std::uint32_t const bits = level == 0 ? 0U : std::bit_cast<std::uint32_t>(magnitude);
  float const value = std::bit_cast<float>(bits | (code & 0x200U) << 22U);
  return void_tile ? scale.min : value;
}

constexpr void logfmt_decode(LogfmtScale const& scale, LogfmtQuad const& quad, float (&x)[logfmt_quad]) noexcept {
  for (std::uint32_t i = 0; i < logfmt_quad; ++i) {
    x[i] = logfmt_value(scale, (quad.low >> (8 * i) & 0xffU) | (quad.high >> (2 * i) & 3U) << 8U);
  }
}

// Codes a whole tile, of which `count` channels are there; the others count as zeros. `codes` takes
// logfmt_tile_bytes: the words of all quads, then their bytes. The loops have no branches, so that compilers turn
// them into vector instructions.
[[gnu::always_inline]] constexpr LogfmtScale logfmt_encode_tile(float const* x, int count,
                                                                std::uint8_t* codes) noexcept {
  float padded[logfmt_tile] = {};
  for (int i = 0; i < count; ++i) padded[i] = x[i];
  LogfmtRange range;
  for (float const value : padded) range.add(value);
  LogfmtEncoder const encoder = logfmt_encoder(range);
  std::uint32_t all[logfmt_tile] = {};
  for (int i = 0; i < logfmt_tile; ++i) all[i] = logfmt_code(encoder, padded[i]);
  for (int i = 0; i < logfmt_tile; ++i) codes[i] = static_cast<std::uint8_t>(all[i]);
  for (int i = 0; i < logfmt_tile; i += logfmt_quad) {
    std::uint32_t high = 0;
    for (int j = 0; j < logfmt_quad; ++j) high |= all[i + j] >> 8U << (2 * j);
    codes[logfmt_high_at + static_cast<std::size_t>(i / logfmt_quad)] = static_cast<std::uint8_t>(high);
  }
  return encoder.scale;
}

[[gnu::always_inline]] constexpr void logfmt_decode_tile(LogfmtScale const& scale, std::uint8_t const* codes,
                                                         float* x, int count) noexcept {
  std::uint32_t all[logfmt_tile] = {};
  for (std::size_t i = 0; i < logfmt_tile; ++i) {
    std::uint32_t const high = codes[logfmt_high_at + i / logfmt_quad];
    all[i] = codes[i] | (high >> (2 * (i % logfmt_quad)) & 3U) << 8U;
  }
  float values[logfmt_tile] = {};
  for (int i = 0; i < logfmt_tile; ++i) values[i] = logfmt_value(scale, all[i]);
  for (int i = 0; i < count; ++i) x[i] = values[i];
}

}  // namespace switchyard
