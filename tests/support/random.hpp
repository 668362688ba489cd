// Random numbers that are the same on every machine and in every process.
#pragma once

#include <cstdint>

#include "oracle/random.hpp"

namespace switchyard::test {

using oracle::mix;

template <typename... Rest>
constexpr std::uint64_t mix(std::uint64_t first, std::uint64_t second, Rest... rest) {
  return mix(mix(first) ^ second, static_cast<std::uint64_t>(rest)...);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(mix(seed)) {}
  std::uint64_t bits() { return state_ = mix(state_); }
  // In [0, end).
  std::int64_t below(std::int64_t end) {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(end));
  }
  // In [low, high].
  int between(int low, int high) { return low + static_cast<int>(below(high - low + 1)); }
  bool chance(int percent) { return below(100) < percent; }
  // In [-4, 4), of 24 bits.
  float real() { return static_cast<float>(bits() >> 40U) * 0x1p-21F - 4.0F; }
  template <typename T, int N>
  T one_of(T const (&values)[N]) {
    return values[below(N)];
  }

 private:
  std::uint64_t state_;
};

}  // namespace switchyard::test
