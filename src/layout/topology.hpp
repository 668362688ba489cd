// Which ranks of a job share a node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace switchyard {

// Ranks of a job at most: routes number them in 16 bits.
inline constexpr int max_ranks = std::numeric_limits<std::int16_t>::max();

// Ranks of a node at most. They map each other's memory, and a set of them fits into a word.
inline constexpr int max_node_ranks = 64;

// A set of ranks of one node: bit i stands for local rank i.
using LocalRankMask = std::uint64_t;
static_assert(max_node_ranks <= std::numeric_limits<LocalRankMask>::digits);

constexpr LocalRankMask mask_of(int local_rank) noexcept {
  return LocalRankMask{1} << local_rank;
}

// The nodes of a job, of any sizes. A rank has a local rank within its node, in the order of ranks.
class Topology {
 public:
  // By rank, the number of its node; every number from 0 on has at least one rank. Throws InvalidArgument for a
  // node of none, or of more than max_node_ranks.
  explicit Topology(std::span<int const> node_by_rank);
  // Nodes of consecutive ranks.
  static Topology of_sizes(std::span<int const> node_sizes);

  [[nodiscard]] int num_nodes() const noexcept { return static_cast<int>(firsts_.size()) - 1; }
  [[nodiscard]] int num_ranks() const noexcept { return static_cast<int>(nodes_.size()); }
  [[nodiscard]] int node_of(int rank) const noexcept { return nodes_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] int local_rank_of(int rank) const noexcept { return locals_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] int num_ranks_of(int node) const noexcept { return static_cast<int>(ranks_of(node).size()); }
  // By local rank.
  [[nodiscard]] std::span<int const> ranks_of(int node) const noexcept;
  [[nodiscard]] int rank_of(int node, int local_rank) const noexcept {
    return ranks_of(node)[static_cast<std::size_t>(local_rank)];
  }

  // The rank of a node that a rank of another node talks to: it has the same local rank, modulo the node's size.
  [[nodiscard]] int rail_peer(int rank, int node) const noexcept {
    return rank_of(node, local_rank_of(rank) % num_ranks_of(node));
  }
  // All ranks of other nodes that are this rank's rail peers, or whose rail peer it is; in the order of ranks. In
  // nodes of one size that is the same, one rank a node.
  [[nodiscard]] std::vector<int> rail_neighbours_of(int rank) const;
  // How many the rank has that has the most.
  [[nodiscard]] std::size_t most_rail_neighbours() const;

 private:
  std::vector<int> nodes_;   // by rank
  std::vector<int> locals_;  // by rank
  std::vector<int> ranks_;   // those of node 0 by local rank, then those of node 1, and so on
  std::vector<int> firsts_;  // by node, where its ranks begin in ranks_; then the number of all ranks
};

}  // namespace switchyard
