// Tokens that find a replica of their expert on their own node, and those that do not.
#pragma once

#include <span>
#include <vector>

#include "plan/experts/placement.hpp"

namespace switchyard::experts {

// Each replica of an expert takes an equal share of its tokens, those of its own node first.
class Crossing {
 public:
  // `tokens`: [nodes, experts]; they outlive this.
  Crossing(Placement const& placement, std::span<Amount const> tokens);

  // How many more tokens stay on their nodes if a replica of the expert moves.
  [[nodiscard]] Amount gain(int expert, int from, int to) const;
  void move(int expert, int from, int to);

 private:
  [[nodiscard]] std::size_t at(int expert, int node) const noexcept;
  [[nodiscard]] Amount stay(std::size_t at, int expert, int replicas) const;

  std::size_t experts_;
  std::span<Amount const> tokens_;
  std::vector<Amount> shares_;  // of each replica of an expert
  std::vector<int> replicas_;   // [nodes, experts]
};

}  // namespace switchyard::experts
