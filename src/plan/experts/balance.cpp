#include "plan/experts/balance.hpp"

#include <algorithm>

namespace switchyard::experts {

namespace {

struct Step {
  int slot = -1;    // -1: no step
  int other = -1;   // the slot to swap with, or
  int expert = -1;  // the expert to put there
  Amount value = 0;
};

class Search {
 public:
  Search(Placement& placement, Moves const& moves) : placement_(placement), moves_(moves) {}

  // The best step that takes load from the heaviest GPU.
  Step best() {
    gpu_ = placement_.heaviest_gpu();
    most_ = placement_.load(gpu_);
    best_ = {};
    try_swaps();
    // A new map of the experts costs nothing that a swap would save, so the dearer search waits until swaps fail.
    if (moves_.counted() || best_.slot < 0) {
      try_replacing_here();
      try_replicas_elsewhere();
    }
    return best_;
  }

 private:
  [[nodiscard]] int first_slot() const { return gpu_ * placement_.cluster().slots_per_gpu(); }
  [[nodiscard]] int end_slot() const { return first_slot() + placement_.cluster().slots_per_gpu(); }

  // What a step is worth that leaves so much load and moves so many experts. One that moves none has a price, too:
  // else the smallest of them would beat all that move.
  [[nodiscard]] Amount value(Amount after, int moved) const { return (most_ - after) / std::max(1, 2 * moved + 1); }

  void consider(Step step) {
    if (step.value > best_.value) best_ = step;
  }

  void try_swaps() {
    Cluster const& cluster = placement_.cluster();
    int const from = cluster.domain_of(first_slot()) * cluster.slots_per_domain();
    int const each = cluster.slots_per_gpu();
    for (int gpu = from / each; gpu < (from + cluster.slots_per_domain()) / each; ++gpu) {
      // The most that a swap can gain is that both have the same.
      if ((most_ - placement_.load(gpu)) / 2 <= best_.value) continue;
      for (int slot = first_slot(); slot < end_slot(); ++slot)
        for (int other = gpu * each; other < (gpu + 1) * each; ++other) try_swap(slot, other);
    }
  }

  void try_swap(int slot, int other) {
    int const one = placement_.expert(slot);
    int const two = placement_.expert(other);
    if (placement_.share(one) <= placement_.share(two)) return;
    Amount const after = placement_.most_load_after_swap(slot, other);
    if (most_ - after <= best_.value) return;
    if (placement_.crowds(placement_.cluster().gpu_of(other), one) || placement_.crowds(gpu_, two)) return;
    consider({.slot = slot, .other = other, .value = value(after, moves_.by_swap(placement_, slot, other))});
  }

  // `here`: what this GPU would have after it, which is quickly found, and is enough to give most steps up.
  void try_replace(int slot, int expert, Amount here) {
    int const moved = moves_.by_replace(placement_, slot, expert);
    if (value(here, moved) <= best_.value) return;
    if (placement_.crowds(placement_.cluster().gpu_of(slot), expert)) return;
    Amount const after = placement_.most_load_after_replace(slot, expert);
    consider({.slot = slot, .expert = expert, .value = value(after, moved)});
  }

  // Whether an expert can do without this slot: its other replicas then have more to do, on GPUs that must not end
  // up as the heaviest ones. What happens to its own GPU and to the heaviest one depends on who gets the slot.
  [[nodiscard]] bool spare(int slot) const {
    int const expert = placement_.expert(slot);
    int const others = placement_.replicas(expert) - 1;
    if (others == 0) return false;
    Amount const room = most_ - placement_.share(expert) / others;
    int const own = placement_.cluster().gpu_of(slot);
    for (int each = placement_.first_slot(expert); each >= 0; each = placement_.next_slot(each)) {
      int const gpu = placement_.cluster().gpu_of(each);
      if (gpu != own && gpu != gpu_ && placement_.load(gpu) >= room) return false;
    }
    return true;
  }

  // Slots of this GPU, for lighter experts.
  void try_replacing_here() {
    Cluster const& cluster = placement_.cluster();
    int const domain = cluster.domain_of(first_slot());
    for (int slot = first_slot(); slot < end_slot(); ++slot) {
      if (!spare(slot)) continue;
      int const expert = placement_.expert(slot);
      Amount const rest = most_ - placement_.share(expert);
      for (int other = 0; other < cluster.experts; ++other)
        if (other != expert && cluster.domain_of(placement_.first_slot(other)) == domain)
          try_replace(slot, other, rest + placement_.next_share(other));
    }
  }

  // Slots of other GPUs, for more replicas of this GPU's experts.
  void try_replicas_elsewhere() {
    Cluster const& cluster = placement_.cluster();
    int const from = cluster.domain_of(first_slot()) * cluster.slots_per_domain();
    for (int slot = from; slot < from + cluster.slots_per_domain(); ++slot) {
      int const gpu = cluster.gpu_of(slot);
      if (gpu == gpu_ || !spare(slot)) continue;
      Amount const rest = placement_.load(gpu) - placement_.share(placement_.expert(slot));
      for (int here = first_slot(); here < end_slot(); ++here) {
        int const expert = placement_.expert(here);
        if (expert == placement_.expert(slot)) continue;
        Amount const next = placement_.next_share(expert);
        try_replace(slot, expert, std::max(most_ - (placement_.share(expert) - next), rest + next));
      }
    }
  }

  Placement& placement_;
  Moves const& moves_;
  int gpu_ = 0;
  Amount most_ = 0;
  Step best_;
};

bool bring_back_by_swap(Placement& placement, int slot, Amount limit, Moves const& moves) {
  Cluster const& cluster = placement.cluster();
  for (int other = placement.first_slot(moves.old(slot)); other >= 0; other = placement.next_slot(other)) {
    if (cluster.domain_of(other) != cluster.domain_of(slot)) continue;
    if (moves.by_swap(placement, slot, other) >= 0) continue;
    if (cluster.gpu_of(other) != cluster.gpu_of(slot) && placement.most_load_after_swap(slot, other) > limit)
      continue;
    placement.swap(slot, other);
    return true;
  }
  return false;
}

void bring_back_by_replace(Placement& placement, int slot, Amount limit, Moves const& moves) {
  Cluster const& cluster = placement.cluster();
  int const expert = moves.old(slot);
  if (placement.replicas(placement.expert(slot)) < 2) return;
  if (cluster.domain_of(placement.first_slot(expert)) != cluster.domain_of(slot)) return;
  if (placement.most_load_after_replace(slot, expert) <= limit) placement.replace(slot, expert);
}

}  // namespace

void balance(Placement& placement, Amount enough, Moves const& moves) {
  Search search(placement, moves);
  // Each step makes the heaviest GPU lighter, so this ends anyhow; it should end soon.
  for (int steps = 4 * placement.cluster().replicas; steps > 0 && placement.most_load() > enough; --steps) {
    Step const step = search.best();
    if (step.slot < 0) return;
    if (step.other >= 0) {
      placement.swap(step.slot, step.other);
    } else {
      placement.replace(step.slot, step.expert);
    }
  }
}

void bring_back(Placement& placement, Amount limit, Moves const& moves) {
  for (int slot = 0; slot < placement.cluster().replicas; ++slot) {
    if (moves.of(slot, placement.expert(slot)) == 0) continue;
    if (!bring_back_by_swap(placement, slot, limit, moves)) bring_back_by_replace(placement, slot, limit, moves);
  }
}

}  // namespace switchyard::experts
