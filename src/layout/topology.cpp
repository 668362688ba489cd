#include "layout/topology.hpp"

#include <algorithm>

#include "base/check.hpp"

namespace switchyard {

namespace {

std::vector<int> sizes_of(std::span<int const> node_by_rank) {
  std::vector<int> sizes;
  for (int const node : node_by_rank) {
    require(node >= 0 && node < static_cast<int>(node_by_rank.size()), "node of a rank: expected 0..{}, seen {}",
            node_by_rank.size() - 1, node);
    if (node >= static_cast<int>(sizes.size())) sizes.resize(static_cast<std::size_t>(node) + 1);
    ++sizes[static_cast<std::size_t>(node)];
  }
  return sizes;
}

}  // namespace

Topology::Topology(std::span<int const> node_by_rank)
    : nodes_(node_by_rank.begin(), node_by_rank.end()), ranks_(node_by_rank.size()), firsts_{0} {
  require(!node_by_rank.empty(), "ranks of a job: expected 1 or more, seen none");
  require(node_by_rank.size() <= max_ranks, "ranks of a job: expected at most {}, seen {}", max_ranks,
          node_by_rank.size());
  std::vector<int> const sizes = sizes_of(node_by_rank);
  for (std::size_t node = 0; node < sizes.size(); ++node) {
    require(sizes[node] >= 1 && sizes[node] <= max_node_ranks, "ranks of node {}: expected 1..{}, seen {}", node,
            max_node_ranks, sizes[node]);
    firsts_.push_back(firsts_.back() + sizes[node]);
  }
  std::vector<int> taken(sizes.size(), 0);
  for (int rank = 0; rank < num_ranks(); ++rank) {
    auto const node = static_cast<std::size_t>(node_of(rank));
    int const place = firsts_[node] + taken[node];
    ranks_[static_cast<std::size_t>(place)] = rank;
    locals_.push_back(taken[node]++);
  }
}

Topology Topology::of_sizes(std::span<int const> node_sizes) {
  std::vector<int> nodes;
  for (std::size_t node = 0; node < node_sizes.size(); ++node) {
    int const size = node_sizes[node];
    require(size >= 1 && size <= max_node_ranks, "ranks of node {}: expected 1..{}, seen {}", node, max_node_ranks,
            size);
    nodes.insert(nodes.end(), static_cast<std::size_t>(size), static_cast<int>(node));
  }
  return Topology(nodes);
}

std::span<int const> Topology::ranks_of(int node) const noexcept {
  auto const begin = static_cast<std::size_t>(firsts_[static_cast<std::size_t>(node)]);
  auto const end = static_cast<std::size_t>(firsts_[static_cast<std::size_t>(node) + 1]);
  return std::span(ranks_).subspan(begin, end - begin);
}

std::vector<int> Topology::rail_neighbours_of(int rank) const {
  int const own = node_of(rank);
  std::vector<int> found;
  for (int other = 0; other < num_ranks(); ++other) {
    int const node = node_of(other);
    if (node != own && (rail_peer(rank, node) == other || rail_peer(other, own) == rank)) found.push_back(other);
  }
  return found;
}

std::size_t Topology::most_rail_neighbours() const {
  std::size_t most = 0;
  for (int rank = 0; rank < num_ranks(); ++rank) most = std::max(most, rail_neighbours_of(rank).size());
  return most;
}

}  // namespace switchyard
