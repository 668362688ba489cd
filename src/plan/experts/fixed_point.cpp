#include "plan/experts/fixed_point.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace switchyard::experts {

namespace {

constexpr int bits_of_sum = 60;
constexpr int bits_of_largest = 44;

}  // namespace

FixedPoint::FixedPoint(std::span<double const> values) {
  double const largest = values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  if (largest <= 0) return;
  int const bits = std::min(bits_of_largest, bits_of_sum - static_cast<int>(std::bit_width(values.size())));
  exponent_ = bits - 1 - std::ilogb(largest);
}

Amount FixedPoint::of(double value) const {
  // A value beyond the largest comes from elsewhere (a price, say), and may be infinite.
  double const scaled = std::ldexp(value, exponent_);
  constexpr double most = 0x1p60;
  return static_cast<Amount>(std::min(scaled, most));
}

std::vector<Amount> FixedPoint::of(std::span<double const> values) const {
  std::vector<Amount> amounts(values.size());
  std::transform(values.begin(), values.end(), amounts.begin(), [&](double value) { return of(value); });
  return amounts;
}

}  // namespace switchyard::experts
