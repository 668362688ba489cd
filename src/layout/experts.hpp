// Which rank holds which expert: each has a contiguous range, and the first E % R ranks hold one more.
#pragma once

namespace switchyard {

class ExpertSplit {
 public:
  constexpr ExpertSplit(int num_experts, int num_ranks) noexcept
      : num_experts_(num_experts), base_(num_experts / num_ranks), extra_(num_experts % num_ranks) {}

  [[nodiscard]] constexpr int num_experts() const noexcept { return num_experts_; }
  [[nodiscard]] constexpr int count(int rank) const noexcept { return base_ + (rank < extra_ ? 1 : 0); }
  [[nodiscard]] constexpr int first(int rank) const noexcept {
    return rank * base_ + (rank < extra_ ? rank : extra_);
  }
  [[nodiscard]] constexpr int rank_of(int expert) const noexcept {
    int const in_larger = extra_ * (base_ + 1);
    bool const larger = expert < in_larger;
    // There is one division only, since on GPUs it is a long sequence of instructions.
    auto const index = static_cast<unsigned>(larger ? expert : expert - in_larger);
    auto const count = static_cast<unsigned>(larger ? base_ + 1 : base_);
    return (larger ? 0 : extra_) + static_cast<int>(index / count);
  }
  // The most local experts that any rank holds.
  [[nodiscard]] constexpr int max_count() const noexcept { return base_ + (extra_ > 0 ? 1 : 0); }

 private:
  int num_experts_;
  int base_;
  int extra_;
};

}  // namespace switchyard
