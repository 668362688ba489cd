// How much the suite does, and from which seed.
//   SWITCHYARD_TEST_SCALE=small|normal  small: for sanitizers
//   SWITCHYARD_TEST_SEED=<number>       repeats a run of the random tests
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string_view>

namespace switchyard::test {

inline bool small_scale() {
  char const* const scale = std::getenv("SWITCHYARD_TEST_SCALE");
  return scale != nullptr && std::string_view(scale) == "small";
}

inline int by_scale(int small, int normal) {
  return small_scale() ? small : normal;
}

inline std::uint64_t seed_or(std::uint64_t fallback) {
  char const* const text = std::getenv("SWITCHYARD_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : fallback;
}

// A new seed in every run unless the environment gives one.
inline std::uint64_t fresh_seed() {
  static std::uint64_t const seed = seed_or(std::random_device{}());
  return seed;
}

// What no run of a few ranks should ever need; a hang ends here.
inline constexpr std::chrono::seconds hang_deadline{90};

}  // namespace switchyard::test
