#include "plan/experts/localize.hpp"

#include <vector>

#include "plan/experts/crossing.hpp"

namespace switchyard::experts {

namespace {

// Most of what can be gained is gained in the first two.
constexpr int most_sweeps = 4;

struct Exchange {
  Amount gain = 0;
  int moved = 0;
};

class Localizer {
 public:
  Localizer(Placement& placement, LocalGoal const& goal, Moves const& moves)
      : placement_(placement), goal_(goal), moves_(moves), crossing_(placement, goal.tokens) {}

  // Blocks of so many slots change places, as long as that pays. Whether any did.
  bool sweep_blocks(int size) {
    Cluster const& cluster = placement_.cluster();
    bool any = false;
    for (int one = 0; one < cluster.replicas; one += size) {
      int const from = cluster.node_of(one);
      int to = -1;
      Amount there = 0;
      for (int two = one + size; two < cluster.replicas; two += size) {
        if (cluster.node_of(two) == from) continue;
        if (cluster.node_of(two) != to) {
          to = cluster.node_of(two);
          there = block_gain(one, size, to);
        }
        // An estimate: too low where both hold an expert, and too high where one holds it twice.
        if (there + block_gain(two, size, from) <= 0 || !exchange_blocks(one, two, size)) continue;
        any = true;
        to = -1;
      }
    }
    return any;
  }

  // The same for single slots, which change loads.
  bool sweep_slots() {
    bool any = false;
    back_node_ = -1;
    for (int slot = 0; slot < placement_.cluster().replicas; ++slot) any = move_slot(slot) || any;
    return any;
  }

 private:
  [[nodiscard]] bool pays(Exchange const& exchange) const {
    if (exchange.gain <= 0) return false;
    return exchange.moved <= 0 || exchange.gain / exchange.moved > goal_.move_cost;
  }

  Amount cross(int expert, int from, int to) {
    Amount const gain = crossing_.gain(expert, from, to);
    crossing_.move(expert, from, to);
    return gain;
  }

  bool exchange_blocks(int one, int two, int size) {
    int const from = placement_.cluster().node_of(one);
    int const to = placement_.cluster().node_of(two);
    Exchange exchange;
    for (int i = 0; i < size; ++i) {
      exchange.moved += moves_.by_swap(placement_, one + i, two + i);
      exchange.gain += cross(placement_.expert(one + i), from, to);
      exchange.gain += cross(placement_.expert(two + i), to, from);
    }
    bool const taken = pays(exchange);
    for (int i = 0; i < size; ++i) {
      if (taken) {
        placement_.swap(one + i, two + i);
      } else {
        crossing_.move(placement_.expert(one + i), to, from);
        crossing_.move(placement_.expert(two + i), from, to);
      }
    }
    return taken;
  }

  // What the experts of a block gain, each alone, if they go to another node.
  [[nodiscard]] Amount block_gain(int first, int size, int to) const {
    int const from = placement_.cluster().node_of(first);
    Amount sum = 0;
    for (int slot = first; slot < first + size; ++slot) sum += crossing_.gain(placement_.expert(slot), from, to);
    return sum;
  }

  // Notes what each slot's expert gains if it goes to that node. That holds until a slot moves.
  void look_back(int node) {
    if (back_node_ == node) return;
    back_node_ = node;
    Cluster const& cluster = placement_.cluster();
    back_.resize(static_cast<std::size_t>(cluster.replicas));
    for (int slot = 0; slot < cluster.replicas; ++slot)
      back_[static_cast<std::size_t>(slot)] = crossing_.gain(placement_.expert(slot), cluster.node_of(slot), node);
  }

  // Swaps a slot with the best one of another node that its expert would gain from.
  bool move_slot(int slot) {
    int const from = placement_.cluster().node_of(slot);
    look_back(from);
    best_ = -1;
    most_ = 0;
    for (int to = 0; to < placement_.cluster().nodes; ++to) {
      if (to == from) continue;
      Amount const gain = crossing_.gain(placement_.expert(slot), from, to);
      if (gain > 0) find_partner(slot, gain, to);
    }
    if (best_ < 0) return false;
    int const to = placement_.cluster().node_of(best_);
    crossing_.move(placement_.expert(slot), from, to);
    crossing_.move(placement_.expert(best_), to, from);
    placement_.swap(slot, best_);
    back_node_ = -1;
    return true;
  }

  void find_partner(int slot, Amount gain, int node) {
    int const each = placement_.cluster().replicas / placement_.cluster().nodes;
    for (int other = node * each; other < (node + 1) * each; ++other) {
      Amount const both = gain + back_[static_cast<std::size_t>(other)];
      if (both <= most_ || placement_.expert(other) == placement_.expert(slot) || !allowed(slot, other)) continue;
      if (!pays({both, moves_.by_swap(placement_, slot, other)})) continue;
      most_ = both;
      best_ = other;
    }
  }

  [[nodiscard]] bool allowed(int slot, int other) const {
    Cluster const& cluster = placement_.cluster();
    return placement_.most_load_after_swap(slot, other) <= goal_.limit &&
           !placement_.crowds(cluster.gpu_of(other), placement_.expert(slot)) &&
           !placement_.crowds(cluster.gpu_of(slot), placement_.expert(other));
  }

  Placement& placement_;
  LocalGoal const& goal_;
  Moves const& moves_;
  Crossing crossing_;
  std::vector<Amount> back_;  // see look_back()
  int back_node_ = -1;        // -1: for none
  int best_ = -1;             // the best partner of the slot that moves, and what both gain
  Amount most_ = 0;
};

}  // namespace

void localize(Placement& placement, LocalGoal const& goal, Moves const& moves) {
  Cluster const& cluster = placement.cluster();
  if (cluster.nodes == 1) return;
  bool const bound = cluster.domains() == cluster.nodes;
  Localizer localizer(placement, goal, moves);
  int const block = bound ? cluster.slots_per_domain() : cluster.slots_per_gpu();
  for (int i = 0; i < most_sweeps && localizer.sweep_blocks(block); ++i) {
  }
  if (bound) return;
  for (int i = 0; i < most_sweeps && localizer.sweep_slots(); ++i) {
  }
}

}  // namespace switchyard::experts
