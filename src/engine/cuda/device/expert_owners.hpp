// Which rank holds an expert, for kernels. On GPUs a division is a long sequence of instructions, so divisions by
// numbers that the host knows become multiplications.
#pragma once

#include <cstdint>

#include "layout/experts.hpp"

namespace switchyard::cuda {

// of(n) is n / divisor for all n with n * divisor < 2^32: the inverse is too large by less than divisor / 2^32 of
// itself, and so the product is too large by less than one step.
class QuickDivisor {
 public:
  constexpr QuickDivisor() noexcept : QuickDivisor(1) {}
  constexpr explicit QuickDivisor(std::uint32_t divisor) noexcept
      : inverse_((std::uint64_t{1} << 32U) / divisor + 1) {}

  [[nodiscard]] constexpr std::uint32_t of(std::uint32_t n) const noexcept {
    return static_cast<std::uint32_t>(n * inverse_ >> 32U);
  }

 private:
  std::uint64_t inverse_;  // has 33 bits for a divisor of 1
};

// Gives the same answers as ExpertSplit::rank_of(), without a division.
class ExpertOwners {
 public:
  ExpertOwners() = default;
  ExpertOwners(ExpertSplit const& split, int num_ranks)
      : extra_(split.num_experts() % num_ranks),
        in_larger_(extra_ * split.max_count()),
        larger_(divisor(split.max_count())),
        smaller_(divisor(split.num_experts() / num_ranks)) {}

  [[nodiscard]] constexpr int rank_of(int expert) const noexcept {
    bool const larger = expert < in_larger_;
    auto const index = static_cast<std::uint32_t>(larger ? expert : expert - in_larger_);
    return larger ? static_cast<int>(larger_.of(index)) : extra_ + static_cast<int>(smaller_.of(index));
  }

 private:
  static QuickDivisor divisor(int count) { return QuickDivisor(static_cast<std::uint32_t>(count > 0 ? count : 1)); }

  int extra_ = 0;      // ranks that hold one expert more than the others
  int in_larger_ = 0;  // experts of those ranks together
  QuickDivisor larger_;
  QuickDivisor smaller_;
};

}  // namespace switchyard::cuda
