#include "oracle/fp8_reference.hpp"

#include <algorithm>
#include <cmath>

#include "oracle/payload.hpp"

namespace switchyard::cli {

std::uint8_t float_to_e4m3(float value) noexcept {
  auto const sign = static_cast<std::uint8_t>(std::signbit(value) ? 0x80 : 0);
  if (std::isnan(value)) return sign | 0x7fU;
  float const magnitude = std::fabs(value);
  if (magnitude >= 448.0F) return sign | 0x7eU;
  // Steps of a binade [2^e, 2^(e+1)) are 2^(e-3); below 2^-6 they stay 2^-9.
  int const exponent = magnitude < 0x1p-6F ? -6 : std::ilogb(magnitude);
  auto const steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 3 - exponent)));
  // `steps` is 8 to 16 in a binade (16: rounded up into the next one) and 0 to 8 below 2^-6; the codes of
  // both run on without a gap.
  int const code = std::min((exponent + 6) * 8 + steps, 0x7e);
  return static_cast<std::uint8_t>(sign | code);
}

void cast_reference(std::span<std::uint16_t const> row, std::span<std::byte> values, std::span<float> scales) {
  constexpr std::size_t group = 128;
  for (std::size_t g = 0; g < scales.size(); ++g) {
    auto const part = row.subspan(g * group, std::min(group, row.size() - g * group));
    float amax = 1e-4F;
    for (auto const bits : part) amax = std::max(amax, std::fabs(bf16_to_float(bits)));
    scales[g] = amax / 448.0F;
    float const factor = 448.0F / amax;
    for (std::size_t i = 0; i < part.size(); ++i) {
      values[g * group + i] = std::byte{float_to_e4m3(bf16_to_float(part[i]) * factor)};
    }
  }
}

}  // namespace switchyard::cli
