#include "layout/routes.hpp"

#include <algorithm>
#include <array>

#include "base/check.hpp"

namespace switchyard {

namespace {

RouteTable empty_table(std::int64_t num_tokens, int num_ranks, int num_experts) {
  RouteTable table;
  table.begin.reserve(static_cast<std::size_t>(num_tokens) + 1);
  table.begin.push_back(0);
  table.rows_per_rank.resize(static_cast<std::size_t>(num_ranks));
  table.slots_per_expert.resize(static_cast<std::size_t>(num_experts));
  return table;
}

void end_token(RouteTable& table) {
  table.begin.push_back(static_cast<std::int64_t>(table.routes.size()));
}

std::int32_t next(std::int64_t& counter) {
  return static_cast<std::int32_t>(counter++);
}

// A set of any ranks of a job, as bits. Whoever adds ranks for one token removes them before the next.
class RankSet {
 public:
  explicit RankSet(int num_ranks) : words_((static_cast<std::size_t>(num_ranks) + bits - 1) / bits) {}

  // Returns whether the rank was not in the set.
  bool add(int rank) noexcept {
    auto const at = static_cast<std::size_t>(rank);
    std::uint64_t const before = words_[at / bits];
    words_[at / bits] |= std::uint64_t{1} << at % bits;
    return words_[at / bits] != before;
  }
  void remove(int rank) noexcept {
    auto const at = static_cast<std::size_t>(rank);
    words_[at / bits] &= ~(std::uint64_t{1} << at % bits);
  }

 private:
  static constexpr std::size_t bits = 64;
  std::vector<std::uint64_t> words_;
};

// Reads the ids of a token: notes the rank of each slot and counts the experts.
template <typename Id>
class FlatReader {
 public:
  FlatReader(ConstTensorView const& topk_idx, ExpertSplit const& experts)
      : ids_(topk_idx), num_experts_(experts.num_experts()) {
    rank_of_.reserve(static_cast<std::size_t>(num_experts_));
    for (int expert = 0; expert < num_experts_; ++expert)
      rank_of_.push_back(static_cast<std::int16_t>(experts.rank_of(expert)));
  }

  void read(std::int64_t token, RouteTable& table) const {
    auto const* const ids = static_cast<Id const*>(ids_.data) + token * ids_.stride(0);
    std::int16_t* const ranks = table.slot_rank.data() + token * ids_.size(1);
    for (std::int64_t slot = 0; slot < ids_.size(1); ++slot) {
      std::int64_t const expert = ids[slot * ids_.stride(1)];
      ranks[slot] = -1;
      if (expert == -1) continue;
      check_expert(token, slot, expert, num_experts_);
      ++table.slots_per_expert[static_cast<std::size_t>(expert)];
      ranks[slot] = rank_of_[static_cast<std::size_t>(expert)];
    }
  }

 private:
  ConstTensorView ids_;
  int num_experts_;
  std::vector<std::int16_t> rank_of_;
};

// The ranks of a token, each once, by the last of its slots. Read from the end, that is where a rank comes up
// first.
class RanksBySlot {
 public:
  explicit RanksBySlot(int num_ranks) : seen_(num_ranks) {}

  std::span<std::int16_t const> of(std::span<std::int16_t const> rank_of_slot) {
    std::size_t first = order_.size();
    for (std::size_t slot = rank_of_slot.size(); slot-- > 0;) {
      if (rank_of_slot[slot] >= 0 && seen_.add(rank_of_slot[slot])) order_[--first] = rank_of_slot[slot];
    }
    auto const ranks = std::span(order_).subspan(first);
    for (int const rank : ranks) seen_.remove(rank);
    return ranks;
  }

 private:
  RankSet seen_;
  std::array<std::int16_t, max_top_k> order_{};  // filled from the end
};

template <typename Id>
void add_flat_routes(ConstTensorView const& topk_idx, ExpertSplit const& experts, RouteTable& table) {
  FlatReader<Id> const reader(topk_idx, experts);
  RanksBySlot ranks(static_cast<int>(table.rows_per_rank.size()));
  auto const top_k = static_cast<std::size_t>(topk_idx.size(1));
  for (std::int64_t token = 0; token < topk_idx.size(0); ++token) {
    reader.read(token, table);
    for (std::int16_t const rank :
         ranks.of(std::span(table.slot_rank).subspan(static_cast<std::size_t>(token) * top_k, top_k))) {
      table.routes.push_back({.row = next(table.rows_per_rank[static_cast<std::size_t>(rank)]), .rank = rank});
    }
    end_token(table);
  }
}

}  // namespace

void check_expert(std::int64_t token, std::int64_t slot, std::int64_t expert, int num_experts) {
  if (expert >= 0 && expert < num_experts) return;
  require(false, "topk_idx[{}, {}]: expected -1 or 0..{}, seen {}", token, slot, num_experts - 1, expert);
}

RouteTable flat_routes(ConstTensorView topk_idx, ExpertSplit const& experts, int num_ranks) {
  RouteTable table = empty_table(topk_idx.size(0), num_ranks, experts.num_experts());
  table.slot_rank.resize(static_cast<std::size_t>(topk_idx.numel()));
  table.routes.reserve(
      static_cast<std::size_t>(topk_idx.size(0) * std::min<std::int64_t>(topk_idx.size(1), num_ranks)));
  if (topk_idx.dtype == DType::i64) {
    add_flat_routes<std::int64_t>(topk_idx, experts, table);
  } else {
    add_flat_routes<std::int32_t>(topk_idx, experts, table);
  }
  return table;
}

RouteTable expanded_routes(ConstTensorView topk_idx, ExpertSplit const& experts, int num_ranks) {
  RouteTable table = empty_table(topk_idx.size(0), num_ranks, experts.num_experts());
  RankSet ranks(num_ranks);
  for (std::int64_t token = 0; token < topk_idx.size(0); ++token) {
    for (std::int64_t slot = 0; slot < topk_idx.size(1); ++slot) {
      std::int64_t const expert = topk_at(topk_idx, token, slot);
      if (expert == -1) continue;
      check_expert(token, slot, expert, experts.num_experts());
      int const rank = experts.rank_of(static_cast<int>(expert));
      if (ranks.add(rank)) ++table.rows_per_rank[static_cast<std::size_t>(rank)];
      table.routes.push_back({.row = next(table.slots_per_expert[static_cast<std::size_t>(expert)]),
                              .rank = static_cast<std::int16_t>(rank),
                              .slot = static_cast<std::int16_t>(slot),
                              .expert = static_cast<std::int32_t>(expert)});
    }
    end_token(table);
    for (Route const& route : table.of(token)) ranks.remove(route.rank);
  }
  return table;
}

RouteTable masked_routes(ConstTensorView token_in_rank) {
  int const num_ranks = static_cast<int>(token_in_rank.size(1));
  RouteTable table = empty_table(token_in_rank.size(0), num_ranks, 0);
  auto const* const mask = static_cast<std::uint8_t const*>(token_in_rank.data);
  for (std::int64_t token = 0; token < token_in_rank.size(0); ++token) {
    for (int rank = 0; rank < num_ranks; ++rank) {
      if (mask[token * token_in_rank.stride(0) + rank * token_in_rank.stride(1)] == 0) continue;
      auto& rows = table.rows_per_rank[static_cast<std::size_t>(rank)];
      table.routes.push_back({.row = next(rows), .rank = static_cast<std::int16_t>(rank)});
    }
    end_token(table);
  }
  return table;
}

}  // namespace switchyard
