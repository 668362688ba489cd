#include "call/hosted/host_layout.hpp"

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "call/throughput.hpp"
#include "layout/routes.hpp"
#include "layout/topology.hpp"

namespace switchyard {

namespace {

// Makes a tensor that owns the values.
template <typename T>
Tensor host_tensor(std::vector<T> values, DType dtype, std::initializer_list<std::int64_t> shape) {
  auto const owner = std::make_shared<std::vector<T>>(std::move(values));
  return {TensorView(owner->data(), dtype, shape), owner};
}

}  // namespace

Layout host_layout(ConstTensorView topk_idx, int num_experts, int num_ranks) {
  RouteTable const table = flat_routes(topk_idx, ExpertSplit(num_experts, num_ranks), num_ranks);
  std::vector<std::uint8_t> in_rank(static_cast<std::size_t>(table.num_tokens() * num_ranks));
  for (std::int64_t token = 0; token < table.num_tokens(); ++token) {
    for (Route const& each : table.of(token)) in_rank[static_cast<std::size_t>(token * num_ranks + each.rank)] = 1;
  }
  std::vector<std::int32_t> per_rank(table.rows_per_rank.begin(), table.rows_per_rank.end());
  std::vector<std::int32_t> per_expert(table.slots_per_expert.begin(), table.slots_per_expert.end());
  return {.num_tokens_per_rank = host_tensor(std::move(per_rank), DType::i32, {num_ranks}),
          .num_tokens_per_expert = host_tensor(std::move(per_expert), DType::i32, {num_experts}),
          .is_token_in_rank = host_tensor(std::move(in_rank), DType::u8, {table.num_tokens(), num_ranks})};
}

Layout host_layout(ConstTensorView topk_idx, int num_experts, Topology const& nodes) {
  Layout layout = host_layout(topk_idx, num_experts, nodes.num_ranks());
  if (nodes.num_nodes() == 1) return layout;
  auto const num_ranks = static_cast<std::size_t>(nodes.num_ranks());
  std::span const in_rank(layout.is_token_in_rank.data<std::uint8_t>(),
                          static_cast<std::size_t>(topk_idx.size(0)) * num_ranks);
  std::vector<std::int32_t> per_node(static_cast<std::size_t>(nodes.num_nodes()));
  for (std::size_t token = 0; token < in_rank.size(); token += num_ranks) {
    std::span const row = in_rank.subspan(token, num_ranks);
    for (int node = 0; node < nodes.num_nodes(); ++node) {
      bool const goes = std::ranges::any_of(nodes.ranks_of(node),
                                            [&](int rank) { return row[static_cast<std::size_t>(rank)] != 0; });
      per_node[static_cast<std::size_t>(node)] += goes ? 1 : 0;
    }
  }
  layout.num_tokens_per_node = host_tensor(std::move(per_node), DType::i32, {nodes.num_nodes()});
  return layout;
}

Layout get_layout(ConstTensorView topk_idx, int num_experts, int num_ranks) {
  require(num_experts >= 1 && num_experts <= (1 << 20), "num_experts: expected 1..{}, seen {}", 1 << 20,
          num_experts);
  require(num_ranks >= 1 && num_ranks <= max_ranks, "num_ranks: expected 1..{}, seen {}", max_ranks, num_ranks);
  require(topk_idx.ndim == 2, "topk_idx: expected 2 dimensions, seen {}", topk_idx.ndim);
  require(topk_idx.size(1) >= 1 && topk_idx.size(1) <= max_top_k, "topk_idx: dimension 1: expected 1..{}, seen {}",
          max_top_k, topk_idx.size(1));
  BufferOptions options;
  options.num_experts = num_experts;
  options.top_k = static_cast<int>(topk_idx.size(1));
  check_topk_idx(topk_idx, {options, num_ranks, 0, Device::cpu});
  return host_layout(topk_idx, num_experts, num_ranks);
}

}  // namespace switchyard
