// Division by a number that the host knows: on GPUs a division is a long sequence of instructions.
#pragma once

#include <cstdint>

namespace switchyard::cuda {

// of(n) is n / divisor, for all that have n * divisor < 2^32: the inverse is too large by less than
// divisor / 2^32 of itself, and the product by less than one step.
class QuickDivisor {
 public:
  constexpr QuickDivisor() noexcept : QuickDivisor(1) {}
  constexpr explicit QuickDivisor(std::uint32_t divisor) noexcept
      : inverse_((std::uint64_t{1} << 32U) / divisor + 1) {}

  [[nodiscard]] constexpr std::uint32_t of(std::uint32_t n) const noexcept {
    return static_cast<std::uint32_t>(n * inverse_ >> 32U);
  }

 private:
  std::uint64_t inverse_;  // 33 bits for a divisor of 1
};

}  // namespace switchyard::cuda
