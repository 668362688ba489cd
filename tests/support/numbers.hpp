// Floating-point formats by their definition: slow, obvious, and independent of the library.
#pragma once

#include <cstddef>
#include <cstdint>

#include "switchyard/dtype.hpp"

namespace switchyard::test {

struct Format {
  int exponent_bits;
  int mantissa_bits;
  bool has_infinity;
};

inline constexpr Format bf16_format{8, 7, true};
inline constexpr Format f16_format{5, 10, true};
// OCP e4m3 "fn": no infinity, largest 448 (0x7e), one NaN (0x7f).
inline constexpr Format e4m3_format{4, 3, false};

// Nearest even; too large becomes infinity, or the largest value in a format without one.
std::uint32_t encode(float value, Format format);

float decode(std::uint32_t code, Format format);

// Writes `value` as element `index` of an array of a floating dtype.
void put(std::byte* array, DType dtype, std::size_t index, float value);

float get(std::byte const* array, DType dtype, std::size_t index);

}  // namespace switchyard::test
