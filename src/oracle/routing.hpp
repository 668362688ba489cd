// Which experts each token of each rank goes to. Every routing is a pure function of its spec, so that every
// rank knows the routing of all ranks.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "oracle/npy.hpp"
#include "oracle/problem.hpp"

namespace switchyard::oracle {

enum class RoutingKind : std::uint8_t {
  uniform,        // top_k distinct experts, each set equally likely
  group_limited,  // DeepSeek-V3: see group_limited_ids() in routing.cpp
  zipf,           // distinct experts, drawn with popularity 1, 1/2, 1/3, ... in an order that the seed sets
  all_to_one,     // every token to the first experts of rank 0
  replay,         // recorded ids: token t of rank r takes row (r * tokens + t) modulo the rows of the file
};

constexpr std::string_view name_of(RoutingKind kind) noexcept {
  switch (kind) {
    case RoutingKind::uniform: return "uniform";
    case RoutingKind::group_limited: return "group-limited";
    case RoutingKind::zipf: return "zipf";
    case RoutingKind::all_to_one: return "all-to-one";
    case RoutingKind::replay: return "replay";
  }
  return "?";
}

// The ids of all ranks. A slot that has no expert (top_k larger than the experts there are) is -1.
class RoutingTable {
 public:
  RoutingTable(int ranks, std::int64_t tokens, int top_k)
      : tokens_(tokens),
        top_k_(top_k),
        ids_(static_cast<std::size_t>(ranks) * static_cast<std::size_t>(tokens) * static_cast<std::size_t>(top_k)) {
  }

  [[nodiscard]] std::span<std::int32_t> token(int rank, std::int64_t token) noexcept {
    return std::span(ids_).subspan(offset(rank, token), static_cast<std::size_t>(top_k_));
  }
  [[nodiscard]] std::span<std::int32_t const> token(int rank, std::int64_t token) const noexcept {
    return std::span(ids_).subspan(offset(rank, token), static_cast<std::size_t>(top_k_));
  }
  [[nodiscard]] std::int64_t tokens() const noexcept { return tokens_; }

 private:
  [[nodiscard]] std::size_t offset(int rank, std::int64_t token) const noexcept {
    return static_cast<std::size_t>((rank * tokens_ + token) * top_k_);
  }

  std::int64_t tokens_;
  int top_k_;
  std::vector<std::int32_t> ids_;
};

// `recorded` is read for RoutingKind::replay only. Throws InvalidArgument when its width is not top_k, an id is
// neither -1 nor an expert, or a token names an expert twice.
RoutingTable make_routing(Problem const& problem, RoutingKind kind, IdTable const& recorded = {});

}  // namespace switchyard::oracle
