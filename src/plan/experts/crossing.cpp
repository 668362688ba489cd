#include "plan/experts/crossing.hpp"

#include <algorithm>

namespace switchyard::experts {

Crossing::Crossing(Placement const& placement, std::span<Amount const> tokens)
    : experts_(static_cast<std::size_t>(placement.cluster().experts)),
      tokens_(tokens),
      shares_(experts_, 0),
      replicas_(tokens.size(), 0) {
  Cluster const& cluster = placement.cluster();
  for (int slot = 0; slot < cluster.replicas; ++slot)
    ++replicas_[at(placement.expert(slot), cluster.node_of(slot))];
  for (int expert = 0; expert < cluster.experts; ++expert) {
    Amount& share = shares_[static_cast<std::size_t>(expert)];
    for (int node = 0; node < cluster.nodes; ++node) share += tokens_[at(expert, node)];
    share /= placement.replicas(expert);
  }
}

std::size_t Crossing::at(int expert, int node) const noexcept {
  return static_cast<std::size_t>(node) * experts_ + static_cast<std::size_t>(expert);
}

Amount Crossing::stay(std::size_t at, int expert, int replicas) const {
  return std::min(tokens_[at], replicas * shares_[static_cast<std::size_t>(expert)]);
}

Amount Crossing::gain(int expert, int from, int to) const {
  std::size_t const less = at(expert, from);
  std::size_t const more = at(expert, to);
  return stay(less, expert, replicas_[less] - 1) - stay(less, expert, replicas_[less]) +
         stay(more, expert, replicas_[more] + 1) - stay(more, expert, replicas_[more]);
}

void Crossing::move(int expert, int from, int to) {
  --replicas_[at(expert, from)];
  ++replicas_[at(expert, to)];
}

}  // namespace switchyard::experts
