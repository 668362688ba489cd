// The routing arithmetic: from top-k ids to the rows that each token takes on each rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "layout/experts.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard {

// Slots of a token at most.
inline constexpr int max_top_k = 64;

// One row that a token takes somewhere.
struct Route {
  std::int32_t row = 0;   // within its (source, rank) or (source, expert) stream, until the receivers have answered
  std::int16_t rank = 0;  // destination
  std::int16_t slot = -1;    // top-k slot of this row (expanded); -1 otherwise
  std::int32_t expert = -1;  // global id (expanded); -1 otherwise
};

// All rows of all tokens of one source, tokens in order; within a token by slot, where a row that stands for
// several slots comes at the last of them, and by rank without slots. That order is the order of combine's sum. It
// is the one of DeepEP's ElasticBuffer, whose sums are bitwise the same; DeepEP's older Buffer adds rows by rank.
struct RouteTable {
  std::vector<std::int64_t> begin;  // [N + 1], into routes
  std::vector<Route> routes;
  std::vector<std::int64_t> rows_per_rank;     // [R] rows of the flat layout, which are distinct tokens
  std::vector<std::int64_t> slots_per_expert;  // [E] top-k slots that name the expert
  std::vector<std::int16_t> slot_rank;         // [N, K] rank of each slot's expert, -1: not used; flat only

  [[nodiscard]] std::int64_t num_tokens() const noexcept { return static_cast<std::int64_t>(begin.size()) - 1; }
  [[nodiscard]] std::span<Route const> of(std::int64_t token) const noexcept {
    auto const t = static_cast<std::size_t>(token);
    return std::span(routes).subspan(static_cast<std::size_t>(begin[t]),
                                     static_cast<std::size_t>(begin[t + 1] - begin[t]));
  }
};

// One row for each (token, rank). topk_idx: [N, K] i64 or i32, -1: the slot is not used. Throws InvalidArgument at
// the first id that is out of range.
RouteTable flat_routes(ConstTensorView topk_idx, ExpertSplit const& experts, int num_ranks);
// One row for each slot that is used; the same ids and errors.
RouteTable expanded_routes(ConstTensorView topk_idx, ExpertSplit const& experts, int num_ranks);
// One row for each entry of token_in_rank [N, R] u8 that is not zero.
RouteTable masked_routes(ConstTensorView token_in_rank);

// Throws InvalidArgument unless an id that is not -1 is an expert's.
void check_expert(std::int64_t token, std::int64_t slot, std::int64_t expert, int num_experts);

// The id at (token, slot) of a topk_idx tensor of either dtype.
inline std::int64_t topk_at(ConstTensorView const& topk_idx, std::int64_t token, std::int64_t slot) noexcept {
  std::int64_t const at = token * topk_idx.stride(0) + slot * topk_idx.stride(1);
  if (topk_idx.dtype == DType::i64) return static_cast<std::int64_t const*>(topk_idx.data)[at];
  return static_cast<std::int32_t const*>(topk_idx.data)[at];
}

// The weight at (token, slot) of a f32 tensor.
inline float weight_at(ConstTensorView const& weights, std::int64_t token, std::int64_t slot) noexcept {
  return static_cast<float const*>(weights.data)[token * weights.stride(0) + slot * weights.stride(1)];
}

}  // namespace switchyard
