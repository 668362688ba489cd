// Which rank holds an expert, for kernels.
#pragma once

#include "engine/cuda/device/quick_divisor.hpp"
#include "layout/experts.hpp"

namespace switchyard::cuda {

// As ExpertSplit::rank_of(), without a division.
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

  int extra_ = 0;      // ranks that hold one more
  int in_larger_ = 0;  // experts of those
  QuickDivisor larger_;
  QuickDivisor smaller_;
};

}  // namespace switchyard::cuda
