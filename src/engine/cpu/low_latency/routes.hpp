// Where the rows of this rank's tokens go, slot by slot of their top-k. A dispatch writes by it, and its combine
// reads by it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "layout/experts.hpp"
#include "switchyard/low_latency.hpp"

namespace switchyard::cpu {

class SlotRoutes {
 public:
  SlotRoutes(ExpertSplit const& experts, int num_ranks, std::int64_t max_tokens, int top_k);

  // Numbers the rows of each stream from 0. A stream is what goes to one expert (expert_major) or to one rank
  // (rank_major). Throws InvalidArgument for an id out of range, and for more than max_tokens rows of an expert.
  void route(ConstTensorView const& topk_idx, SlotLayout layout);

  [[nodiscard]] SlotLayout layout() const noexcept { return layout_; }
  [[nodiscard]] std::int64_t tokens() const noexcept { return tokens_; }
  [[nodiscard]] int rank_of(int expert) const noexcept { return rank_of_[static_cast<std::size_t>(expert)]; }
  // How many rows a stream has.
  [[nodiscard]] std::int32_t count(int stream) const noexcept { return counts_[static_cast<std::size_t>(stream)]; }
  // Rows of all streams.
  [[nodiscard]] std::size_t total() const noexcept { return total_; }
  // Sets where the rows of a stream begin at their receiver. A stream that was not placed sends nothing.
  void place(int stream, std::int64_t begin) noexcept { begins_[static_cast<std::size_t>(stream)] = begin; }

  // The experts of a token, by slot; -1: none.
  [[nodiscard]] std::span<std::int32_t const> experts(std::int64_t token) const {
    return std::span(experts_).subspan(static_cast<std::size_t>(token) * top_k_, top_k_);
  }
  // The row of a slot at its receiver, within the expert's rows (expert_major) or those of this source
  // (rank_major). -1: nothing is sent, or in rank_major an earlier slot of the token has the row.
  [[nodiscard]] std::int64_t row(std::int64_t token, std::size_t slot) const noexcept {
    std::size_t const at = static_cast<std::size_t>(token) * top_k_ + slot;
    if (rows_[at] < 0) return -1;
    std::int64_t const begin = begins_[static_cast<std::size_t>(stream(at))];
    return begin < 0 ? -1 : begin + rows_[at];
  }

 private:
  // The stream of a slot that has an expert.
  [[nodiscard]] int stream(std::size_t at) const noexcept {
    return layout_ == SlotLayout::expert_major ? experts_[at] : rank_of(experts_[at]);
  }
  void read_ids(ConstTensorView const& topk_idx);
  void number_rows(std::int64_t token);

  SlotLayout layout_ = SlotLayout::expert_major;
  std::size_t top_k_;
  std::int64_t max_tokens_;
  std::int64_t tokens_ = 0;
  std::size_t total_ = 0;
  std::vector<std::int16_t> rank_of_;  // by expert, so that looking it up takes no division
  std::vector<std::int32_t> experts_;  // [M, K]
  std::vector<std::int32_t> rows_;     // [M, K], numbers within the stream; -1: none
  std::vector<std::int32_t> counts_;   // [max(E, R)], by stream
  std::vector<std::int64_t> begins_;   // [max(E, R)], by stream; -1: not placed
};

}  // namespace switchyard::cpu
