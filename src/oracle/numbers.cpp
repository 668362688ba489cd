#include "oracle/numbers.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace switchyard::oracle {

namespace {

constexpr std::uint32_t largest_code(Format format) {
  std::uint32_t const top = ((1U << format.exponent_bits) - 1U) << format.mantissa_bits;
  return format.has_infinity ? top : (top | ((1U << format.mantissa_bits) - 2U));
}

Format format_of(DType dtype) {
  if (dtype == DType::bf16) return bf16_format;
  return dtype == DType::f16 ? f16_format : e4m3_format;
}

// The exponent of the subnormal values, and of the smallest normal one.
constexpr int least_exponent(Format format) {
  return 2 - (1 << (format.exponent_bits - 1));
}

constexpr double power_of_two(int exponent) {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52U);
}

}  // namespace

std::uint32_t encode(float value, Format format) noexcept {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  std::uint32_t const sign = (bits >> 31U) << (format.exponent_bits + format.mantissa_bits);
  std::uint32_t const largest = largest_code(format);
  if (std::isnan(value)) return sign | (largest + 1U);
  if (std::isinf(value)) return sign | largest;
  int const least = least_exponent(format);
  int const exponent = std::max(static_cast<int>(bits >> 23U & 0xffU) - 127, least);
  // In units of the last place: 2^mantissa_bits and more unless subnormal; a carry runs into the exponent.
  double const magnitude = std::fabs(static_cast<double>(value));
  double const units = std::nearbyint(magnitude * power_of_two(format.mantissa_bits - exponent));
  std::uint32_t const code =
      (static_cast<std::uint32_t>(exponent - least) << format.mantissa_bits) + static_cast<std::uint32_t>(units);
  return sign | std::min(code, largest);
}

float decode(std::uint32_t code, Format format) noexcept {
  std::uint32_t const sign_bit = 1U << (format.exponent_bits + format.mantissa_bits);
  std::uint32_t const hidden_bit = 1U << format.mantissa_bits;
  int const field = static_cast<int>((code & (sign_bit - 1U)) >> format.mantissa_bits);
  std::uint32_t const mantissa = (code & (hidden_bit - 1U)) | (field > 0 ? hidden_bit : 0U);
  int const exponent = std::max(field - 1, 0) + least_exponent(format) - format.mantissa_bits;
  double const magnitude = static_cast<double>(mantissa) * power_of_two(exponent);
  return static_cast<float>((code & sign_bit) != 0 ? -magnitude : magnitude);
}

void put(std::byte* array, DType dtype, std::size_t index, float value) noexcept {
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

float get(std::byte const* array, DType dtype, std::size_t index) noexcept {
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

std::vector<std::byte> encode_row(std::span<float const> values, DType dtype) {
  std::vector<std::byte> row(values.size() * size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) put(row.data(), dtype, i, values[i]);
  return row;
}

std::vector<float> decode_row(std::span<std::byte const> row, DType dtype) {
  std::vector<float> values(row.size() / size_of(dtype));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = get(row.data(), dtype, i);
  return values;
}

}  // namespace switchyard::oracle
