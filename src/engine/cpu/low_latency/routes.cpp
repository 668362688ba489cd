#include "engine/cpu/low_latency/routes.hpp"

#include <algorithm>
#include <numeric>

#include "base/check.hpp"
#include "layout/routes.hpp"

namespace switchyard::cpu {

SlotRoutes::SlotRoutes(ExpertSplit const& experts, int num_ranks, std::int64_t max_tokens, int top_k)
    : top_k_(static_cast<std::size_t>(top_k)),
      max_tokens_(max_tokens),
      experts_(static_cast<std::size_t>(max_tokens) * top_k_),
      rows_(experts_.size()),
      counts_(static_cast<std::size_t>(std::max(experts.num_experts(), num_ranks))),
      begins_(counts_.size(), -1) {
  for (int expert = 0; expert < experts.num_experts(); ++expert)
    rank_of_.push_back(static_cast<std::int16_t>(experts.rank_of(expert)));
}

void SlotRoutes::route(ConstTensorView const& topk_idx, SlotLayout layout) {
  read_ids(topk_idx);
  layout_ = layout;
  tokens_ = topk_idx.size(0);
  std::ranges::fill(counts_, 0);
  std::ranges::fill(begins_, -1);
  for (std::int64_t token = 0; token < tokens_; ++token) number_rows(token);
  total_ = static_cast<std::size_t>(std::reduce(counts_.begin(), counts_.end()));
}

void SlotRoutes::read_ids(ConstTensorView const& topk_idx) {
  auto const num_experts = static_cast<std::int64_t>(rank_of_.size());
  auto to = experts_.begin();
  for (std::int64_t token = 0; token < topk_idx.size(0); ++token) {
    for (std::int64_t slot = 0; slot < topk_idx.size(1); ++slot) {
      std::int64_t const expert = topk_at(topk_idx, token, slot);
      require(expert >= -1 && expert < num_experts, "topk_idx[{}, {}]: expected -1 or 0..{}, seen {}", token, slot,
              num_experts - 1, expert);
      *to++ = static_cast<std::int32_t>(expert);
    }
  }
}

void SlotRoutes::number_rows(std::int64_t token) {
  std::size_t const begin = static_cast<std::size_t>(token) * top_k_;
  bool const by_expert = layout_ == SlotLayout::expert_major;
  for (std::size_t slot = begin; slot < begin + top_k_; ++slot) {
    rows_[slot] = -1;
    if (experts_[slot] < 0) continue;
    std::size_t earlier = by_expert ? slot : begin;
    while (earlier < slot && (experts_[earlier] < 0 || stream(earlier) != stream(slot))) ++earlier;
    if (earlier < slot) continue;
    std::int32_t& count = counts_[static_cast<std::size_t>(stream(slot))];
    // All sources together have room for max_tokens rows of each, so none may send more.
    require(count < max_tokens_,
            "topk_idx[{}, {}]: expected at most max_tokens = {} rows for an expert, seen more for {}; an id that "
            "repeats within a token is a row each",
            token, slot - begin, max_tokens_, experts_[slot]);
    rows_[slot] = count++;
  }
}

}  // namespace switchyard::cpu
