// How much the suite does, and from which seed.
//   SWITCHYARD_TEST_SCALE=small|normal  small: for sanitizers
//   SWITCHYARD_TEST_SEED=<number>       repeats a run of the random tests
#pragma once

#include <chrono>
#include <cstdint>

namespace switchyard::test {

bool small_scale();

int by_scale(int small, int normal);

std::uint64_t seed_or(std::uint64_t fallback);

// A new seed in every run unless the environment gives one.
std::uint64_t fresh_seed();

// What no run of a few ranks should ever need; a hang ends here.
inline constexpr std::chrono::seconds hang_deadline{90};

}  // namespace switchyard::test
