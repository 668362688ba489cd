// The check of get_layout, whatever the engine: its tensors are in host memory here.
#pragma once

#include <algorithm>
#include <set>
#include <utility>

#include "support/flow.hpp"

namespace switchyard::test {

template <typename T>
std::vector<T> values_of(Tensor const& tensor) {
  return {tensor.data<T>(), tensor.data<T>() + tensor.view().numel()};
}

// Each token once for each node that has one of its ranks.
inline void check_nodes_of(Problem const& p, std::vector<std::uint8_t> const& in_rank, Layout const& seen) {
  std::vector<int> const nodes = terms_of(p.the).node_by_rank;
  check_equal(seen.num_tokens_per_node.given(), terms_of(p.the).spans_nodes(), "num_tokens_per_node given");
  if (!seen.num_tokens_per_node.given()) return;
  std::set<std::pair<std::size_t, int>> tokens;  // with their nodes
  for (std::size_t at = 0; at < in_rank.size(); ++at) {
    if (in_rank[at] != 0) tokens.emplace(at / nodes.size(), nodes[at % nodes.size()]);
  }
  std::vector<std::int32_t> per_node(index(*std::ranges::max_element(nodes) + 1));
  for (auto const& [token, node] : tokens) ++per_node[index(node)];
  check(values_of<std::int32_t>(seen.num_tokens_per_node) == per_node, "num_tokens_per_node");
}

inline void check_layout(Problem const& p, int rank, Layout const& seen) {
  Case const& c = p.the;
  std::int64_t const tokens = p.tokens(rank);
  std::vector<std::int32_t> per_rank(index(c.ranks), 0);
  std::vector<std::int32_t> per_expert(index(c.experts), 0);
  std::vector<std::uint8_t> in_rank(index(tokens * c.ranks), 0);
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (int k = 0; k < c.top_k; ++k) {
      std::int64_t const id = p.id({rank, t}, k);
      if (id >= 0) ++per_expert[index(id)];
    }
    for (int r = 0; r < c.ranks; ++r) {
      if (!goes_to(terms_of(c), p, {rank, t}, r)) continue;
      ++per_rank[index(r)];
      in_rank[index(t * c.ranks + r)] = 1;
    }
  }
  check(values_of<std::int32_t>(seen.num_tokens_per_rank) == per_rank, "num_tokens_per_rank");
  check(values_of<std::int32_t>(seen.num_tokens_per_expert) == per_expert, "num_tokens_per_expert");
  check(values_of<std::uint8_t>(seen.is_token_in_rank) == in_rank, "is_token_in_rank");
  check_nodes_of(p, in_rank, seen);
}

}  // namespace switchyard::test
