#include "support/numbers.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace switchyard::test {
namespace {

std::uint32_t largest_code(Format format) {
  std::uint32_t const top = ((1U << format.exponent_bits) - 1U) << format.mantissa_bits;
  return format.has_infinity ? top : (top | ((1U << format.mantissa_bits) - 2U));
}

Format format_of(DType dtype) {
  if (dtype == DType::bf16) return bf16_format;
  return dtype == DType::f16 ? f16_format : e4m3_format;
}

}  // namespace

std::uint32_t encode(float value, Format format) {
  std::uint32_t const sign = std::signbit(value) ? 1U << (format.exponent_bits + format.mantissa_bits) : 0U;
  std::uint32_t const largest = largest_code(format);
  if (std::isnan(value)) return sign | (largest + 1U);
  if (std::isinf(value)) return sign | largest;
  double const magnitude = std::fabs(static_cast<double>(value));
  int const least = 2 - (1 << (format.exponent_bits - 1));
  int const exponent = magnitude > 0 ? std::max(std::ilogb(magnitude), least) : least;
  // In units of the last place: 2^mantissa_bits and more unless subnormal; a carry runs into the exponent.
  double const units = std::nearbyint(std::ldexp(magnitude, format.mantissa_bits - exponent));
  double const code = std::ldexp(static_cast<double>(exponent - least), format.mantissa_bits) + units;
  return sign | (code >= largest ? largest : static_cast<std::uint32_t>(code));
}

float decode(std::uint32_t code, Format format) {
  std::uint32_t const sign_bit = 1U << (format.exponent_bits + format.mantissa_bits);
  std::uint32_t const mantissa = code & ((1U << format.mantissa_bits) - 1U);
  int const field = static_cast<int>((code & (sign_bit - 1U)) >> format.mantissa_bits);
  int const least = 2 - (1 << (format.exponent_bits - 1));
  double const hidden_bit = field > 0 ? static_cast<double>(1U << format.mantissa_bits) : 0.0;
  int const exponent = std::max(field - 1, 0) + least - format.mantissa_bits;
  double const magnitude = std::ldexp(hidden_bit + static_cast<double>(mantissa), exponent);
  return static_cast<float>((code & sign_bit) != 0 ? -magnitude : magnitude);
}

void put(std::byte* array, DType dtype, std::size_t index, float value) {
  std::byte* const at = array + index * size_of(dtype);
  if (dtype == DType::f32) {
    std::memcpy(at, &value, sizeof value);
  } else if (dtype == DType::f8e4m3) {
    *at = static_cast<std::byte>(encode(value, e4m3_format));
  } else {
    auto const code = static_cast<std::uint16_t>(encode(value, format_of(dtype)));
    std::memcpy(at, &code, sizeof code);
  }
}

float get(std::byte const* array, DType dtype, std::size_t index) {
  std::byte const* const at = array + index * size_of(dtype);
  if (dtype == DType::f32) {
    float value = 0;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  if (dtype == DType::f8e4m3) return decode(std::to_integer<std::uint32_t>(*at), e4m3_format);
  std::uint16_t code = 0;
  std::memcpy(&code, at, sizeof code);
  return decode(code, format_of(dtype));
}

}  // namespace switchyard::test
