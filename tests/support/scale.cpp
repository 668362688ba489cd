#include "support/scale.hpp"

#include <cstdlib>
#include <random>
#include <string_view>

namespace switchyard::test {
bool small_scale() {
  char const* const scale = std::getenv("SWITCHYARD_TEST_SCALE");
  return scale != nullptr && std::string_view(scale) == "small";
}

int by_scale(int small, int normal) {
  return small_scale() ? small : normal;
}

std::uint64_t seed_or(std::uint64_t fallback) {
  char const* const text = std::getenv("SWITCHYARD_TEST_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : fallback;
}

std::uint64_t fresh_seed() {
  static std::uint64_t const seed = seed_or(std::random_device{}());
  return seed;
}

}  // namespace switchyard::test
