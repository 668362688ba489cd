// Counter-based random numbers: any rank computes any number of any other rank without its neighbours.
#pragma once

#include <cstdint>

namespace switchyard::oracle {

// splitmix64's finaliser.
constexpr std::uint64_t mix(std::uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30U)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27U)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31U);
}

// What a sequence is for; sequences of different purposes are independent.
enum class Purpose : std::uint64_t { routing = 1, permutation, activation, scale, weight, expert_output };

// A sequence of 64-bit words, addressed by index.
class RandomRow {
 public:
  constexpr RandomRow(std::uint64_t seed, Purpose purpose, std::uint64_t major, std::uint64_t minor) noexcept
      : base_(mix(mix(mix(seed) ^ static_cast<std::uint64_t>(purpose)) ^ mix(major) * 3U) ^ mix(minor) * 5U) {}

  [[nodiscard]] constexpr std::uint64_t word(std::uint64_t index) const noexcept {
    return mix(base_ + index * 0x9e3779b97f4a7c15U);
  }
  // Uniform in (0, 1).
  [[nodiscard]] constexpr double uniform(std::uint64_t index) const noexcept {
    return (static_cast<double>(word(index) >> 11U) + 0.5) * 0x1p-53;
  }
  // Uniform in [0, bound); the bias of bound / 2^64 is of no matter here.
  [[nodiscard]] constexpr std::uint64_t below(std::uint64_t index, std::uint64_t bound) const noexcept {
    return word(index) % bound;
  }

 private:
  std::uint64_t base_;
};

}  // namespace switchyard::oracle
