// Which ranks of a job share a node.
#pragma once

#include <cstdint>
#include <limits>
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

// The nodes of a job. Each has consecutive ranks, as many as it likes; a rank has a local rank within its node.
class Topology {
 public:
  // By node, how many ranks it has. Throws InvalidArgument for a node of none, or of more than max_node_ranks.
  explicit Topology(std::vector<int> const& node_sizes);

  [[nodiscard]] int num_nodes() const noexcept { return static_cast<int>(first_ranks_.size()) - 1; }
  [[nodiscard]] int num_ranks() const noexcept { return first_ranks_.back(); }
  [[nodiscard]] int node_of(int rank) const noexcept;
  [[nodiscard]] int local_rank_of(int rank) const noexcept { return rank - first_rank_of(node_of(rank)); }
  [[nodiscard]] int first_rank_of(int node) const noexcept { return first_ranks_[static_cast<std::size_t>(node)]; }
  [[nodiscard]] int num_ranks_of(int node) const noexcept { return first_rank_of(node + 1) - first_rank_of(node); }

 private:
  std::vector<int> first_ranks_;  // by node, and then the number of all ranks
};

}  // namespace switchyard
