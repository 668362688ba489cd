// Floating-point formats by their definition, independent of the library's conversions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/dtype.hpp"

namespace switchyard::oracle {

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
std::uint32_t encode(float value, Format format) noexcept;
float decode(std::uint32_t code, Format format) noexcept;

// Writes, or reads, element `index` of an array of a floating dtype.
void put(std::byte* array, DType dtype, std::size_t index, float value) noexcept;
float get(std::byte const* array, DType dtype, std::size_t index) noexcept;

// A whole row.
std::vector<std::byte> encode_row(std::span<float const> values, DType dtype);
std::vector<float> decode_row(std::span<std::byte const> row, DType dtype);

}  // namespace switchyard::oracle
