// A job of several nodes by chance, and what must go where, straight from its ids: lists of (token, node) and of
// (token, rank), and nothing of the library's own arithmetic.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "layout/experts.hpp"
#include "layout/scale_out/dispatch_format.hpp"
#include "layout/scale_out/node_tokens.hpp"
#include "layout/topology.hpp"
#include "support/random.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard::test {

// A slot of a token and the expert that it names; routed by rank: slot -1, and the rank in place of an expert.
struct NodeSlot {
  int slot = -1;
  int target = 0;

  friend bool operator==(NodeSlot const&, NodeSlot const&) = default;
};

// A token of one source with what it has on one node.
struct ExpectedToken {
  std::int32_t token = 0;
  std::vector<NodeSlot> slots{};
};

struct NodeJob {
  std::uint64_t seed = 0;
  std::vector<int> node_by_rank{};
  int num_experts = 1;
  scale_out::DispatchTerms terms{};
  std::vector<std::int64_t> tokens{};                // by source
  std::vector<std::vector<std::int32_t>> ids{};      // by source, [N, K]
  std::vector<std::vector<float>> weights{};         // by source, [N, K]
  std::vector<std::vector<std::uint8_t>> in_rank{};  // by source, [N, R]; routed by rank

  [[nodiscard]] int num_ranks() const { return static_cast<int>(node_by_rank.size()); }
  [[nodiscard]] bool by_rank() const { return terms.top_k == 0; }
  [[nodiscard]] Topology topology() const { return Topology(node_by_rank); }
  [[nodiscard]] ExpertSplit experts() const { return {num_experts, num_ranks()}; }
  [[nodiscard]] ConstTensorView ids_of(int source) const;
  [[nodiscard]] ConstTensorView weights_of(int source) const;
  [[nodiscard]] ConstTensorView in_rank_of(int source) const;
  // As the library finds them.
  [[nodiscard]] std::vector<scale_out::NodeTokens> tokens_by_node(int source) const;

  // The definitions.
  [[nodiscard]] std::vector<int> ranks_of(int node) const;  // in the order of local ranks
  [[nodiscard]] int owner(int expert) const;                // rank
  [[nodiscard]] std::vector<ExpectedToken> expected(int source, int node) const;
  // Tokens of the source that go to the rank, in their order: row i of the stream is that of token i.
  [[nodiscard]] std::vector<std::int32_t> rows(int source, int rank) const;
  // The same for an expert of the expanded layout, which has a row for each slot.
  [[nodiscard]] std::vector<std::pair<std::int32_t, int>> expert_rows(int source, int expert) const;
  // What a row or its scales hold.
  [[nodiscard]] std::vector<std::byte> row_of(int source, std::int32_t token) const;
  [[nodiscard]] std::vector<std::byte> scales_of(int source, std::int32_t token) const;
};

// Any sizes of nodes, ranks in any order, any routing.
NodeJob random_node_job(std::uint64_t seed);

}  // namespace switchyard::test
