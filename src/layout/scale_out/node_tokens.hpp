// What a source sends to each node: which of its tokens, and which of their slots or ranks lie there.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "layout/experts.hpp"
#include "layout/routes.hpp"
#include "layout/topology.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::scale_out {

// How much one source sends to one node. The node learns it before any row.
struct NodeCounts {
  std::uint32_t tokens = 0;
  std::vector<std::uint32_t> rows{};   // by local rank: tokens that go there, which are rows of the flat layout
  std::vector<std::uint32_t> slots{};  // by expert of the node: top-k slots; zeros when routed by rank

  friend bool operator==(NodeCounts const&, NodeCounts const&) = default;
};

// The tokens of one source for one node. Each has a bit in its mask.
struct NodeTokens {
  std::vector<std::int32_t> tokens{};    // numbers at the source, ascending
  std::vector<std::uint64_t> masks{};    // by token: its top-k slots that belong to the node, or its local ranks
  std::vector<std::uint16_t> experts{};  // by token, then slot: number within the node; none when routed by rank
  NodeCounts counts{};

  [[nodiscard]] std::size_t size() const noexcept { return tokens.size(); }
  // That travel with the token.
  [[nodiscard]] std::size_t slots_of(std::size_t token) const noexcept {
    return experts.empty() ? 0 : static_cast<std::size_t>(std::popcount(masks[token]));
  }
};

// By node, the source's own included, from topk_idx [N, K] i64 or i32. Throws InvalidArgument at the first id that
// is out of range.
std::vector<NodeTokens> tokens_by_node(ConstTensorView topk_idx, Topology const& topology,
                                       ExpertSplit const& experts);
// The same for tokens that are routed by rank: by token_in_rank, or along the flat handle of an earlier dispatch,
// whose ids are not kept.
std::vector<NodeTokens> tokens_by_node(RouteTable const& routes, Topology const& topology,
                                       ExpertSplit const& experts);

}  // namespace switchyard::scale_out
