// Which rank of a node passes on to the others of that node what each rank of the job sends there: its own, and
// that of the ranks of other nodes whose rail peer it is. It serves them.
#pragma once

#include <span>
#include <vector>

#include "layout/topology.hpp"

namespace switchyard {

class ServedRanks {
 public:
  ServedRanks(Topology const& topology, int node);

  // Ranks that a local rank serves: itself first, then those of other nodes, in the order of ranks.
  [[nodiscard]] std::span<int const> of(int local_rank) const noexcept {
    return by_local_[static_cast<std::size_t>(local_rank)];
  }
  // Who serves a rank of the job on this node, and its place among those that are served there.
  struct Place {
    int local_rank = 0;
    int index = 0;
  };
  [[nodiscard]] Place place_of(int rank) const noexcept { return places_[static_cast<std::size_t>(rank)]; }
  // The most that a local rank serves.
  [[nodiscard]] int most() const noexcept { return most_; }

 private:
  std::vector<std::vector<int>> by_local_;
  std::vector<Place> places_;  // by rank of the job
  int most_ = 1;
};

}  // namespace switchyard
