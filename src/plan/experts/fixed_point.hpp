// Loads and tokens as whole numbers. Sums of them are exact in any order, so that a search may add and subtract
// without end, and equal shares compare as equal.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace switchyard::experts {

using Amount = std::int64_t;

// Values times a power of two, cut off: the largest gets some 40 bits, and whole numbers below 2^24 stay exact. The
// sum of all stays far below the limit of Amount. Values are finite and not negative.
class FixedPoint {
 public:
  explicit FixedPoint(std::span<double const> values);
  [[nodiscard]] Amount of(double value) const;
  [[nodiscard]] std::vector<Amount> of(std::span<double const> values) const;
  // The same, not cut off.
  template <typename Real>
  [[nodiscard]] std::vector<Real> real(std::span<double const> values) const {
    std::vector<Real> scaled;
    scaled.reserve(values.size());
    for (double const value : values) scaled.push_back(static_cast<Real>(std::ldexp(value, exponent_)));
    return scaled;
  }

 private:
  int exponent_ = 0;
};

}  // namespace switchyard::experts
