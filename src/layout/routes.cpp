#include "layout/routes.hpp"

#include <algorithm>
#include <array>

#include "base/check.hpp"

namespace switchyard {

namespace {

struct Choice {
  std::int32_t expert;
  std::int16_t slot;
};

inline constexpr std::size_t max_top_k = 64;
using Choices = std::array<Choice, max_top_k>;

// The used slots of a token, by expert, then slot. Experts of a rank are contiguous, so this is by rank too.
std::span<Choice const> sorted_choices(ConstTensorView const& topk_idx, std::int64_t token, int num_experts,
                                       Choices& choices) {
  std::size_t used = 0;
  for (std::int64_t slot = 0; slot < topk_idx.size(1); ++slot) {
    std::int64_t const expert = topk_at(topk_idx, token, slot);
    if (expert == -1) continue;
    require(expert >= 0 && expert < num_experts, "topk_idx[{}, {}]: expected -1 or 0..{}, seen {}", token, slot,
            num_experts - 1, expert);
    std::size_t at = used++;
    for (; at > 0 && choices[at - 1].expert > expert; --at) choices[at] = choices[at - 1];
    choices[at] = {static_cast<std::int32_t>(expert), static_cast<std::int16_t>(slot)};
  }
  return std::span(choices).first(used);
}

RouteTable empty_table(std::int64_t num_tokens, int world, int num_experts) {
  RouteTable table;
  table.begin.reserve(static_cast<std::size_t>(num_tokens) + 1);
  table.begin.push_back(0);
  table.rows_per_rank.resize(static_cast<std::size_t>(world));
  table.slots_per_expert.resize(static_cast<std::size_t>(num_experts));
  return table;
}

void end_token(RouteTable& table) {
  table.begin.push_back(static_cast<std::int64_t>(table.routes.size()));
}

std::int32_t next(std::int64_t& counter) {
  return static_cast<std::int32_t>(counter++);
}

}  // namespace

RouteTable flat_routes(ConstTensorView topk_idx, ExpertSplit const& experts, int world) {
  RouteTable table = empty_table(topk_idx.size(0), world, experts.num_experts());
  Choices choices;
  for (std::int64_t token = 0; token < topk_idx.size(0); ++token) {
    int last_rank = -1;
    for (auto const [expert, slot] : sorted_choices(topk_idx, token, experts.num_experts(), choices)) {
      ++table.slots_per_expert[static_cast<std::size_t>(expert)];
      int const rank = experts.rank_of(expert);
      if (rank == last_rank) continue;
      last_rank = rank;
      auto& rows = table.rows_per_rank[static_cast<std::size_t>(rank)];
      table.routes.push_back({.row = next(rows), .rank = static_cast<std::int16_t>(rank), .slot = slot});
    }
    end_token(table);
  }
  return table;
}

RouteTable expanded_routes(ConstTensorView topk_idx, ExpertSplit const& experts, int world) {
  RouteTable table = empty_table(topk_idx.size(0), world, experts.num_experts());
  Choices choices;
  for (std::int64_t token = 0; token < topk_idx.size(0); ++token) {
    int last_rank = -1;
    for (auto const [expert, slot] : sorted_choices(topk_idx, token, experts.num_experts(), choices)) {
      int const rank = experts.rank_of(expert);
      if (rank != last_rank) ++table.rows_per_rank[static_cast<std::size_t>(rank)];
      last_rank = rank;
      auto& rows = table.slots_per_expert[static_cast<std::size_t>(expert)];
      table.routes.push_back(
          {.row = next(rows), .rank = static_cast<std::int16_t>(rank), .slot = slot, .expert = expert});
    }
    end_token(table);
  }
  return table;
}

RouteTable masked_routes(ConstTensorView token_in_rank) {
  int const world = static_cast<int>(token_in_rank.size(1));
  RouteTable table = empty_table(token_in_rank.size(0), world, 0);
  auto const* const mask = static_cast<std::uint8_t const*>(token_in_rank.data);
  for (std::int64_t token = 0; token < token_in_rank.size(0); ++token) {
    for (int rank = 0; rank < world; ++rank) {
      if (mask[token * token_in_rank.stride(0) + rank * token_in_rank.stride(1)] == 0) continue;
      auto& rows = table.rows_per_rank[static_cast<std::size_t>(rank)];
      table.routes.push_back({.row = next(rows), .rank = static_cast<std::int16_t>(rank)});
    }
    end_token(table);
  }
  return table;
}

}  // namespace switchyard
