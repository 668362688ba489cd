#include "plan/experts/placement.hpp"

#include <algorithm>
#include <utility>

namespace switchyard::experts {

Placement::Placement(Cluster const& cluster, std::span<Amount const> loads, std::vector<int> experts)
    : cluster_(cluster),
      loads_(loads),
      experts_(std::move(experts)),
      replicas_(loads.size(), 0),
      shares_(loads.size(), 0),
      gpu_loads_(at(cluster.gpus), 0),
      first_(loads.size(), -1),
      next_(experts_.size(), -1),
      changes_(at(cluster.gpus), 0) {
  for (int const each : experts_) ++replicas_[at(each)];
  for (std::size_t i = 0; i < loads.size(); ++i) shares_[i] = loads[i] / replicas_[i];
  for (int slot = cluster.replicas; slot-- > 0;) {
    link(slot, expert(slot));
    gpu_loads_[at(cluster_.gpu_of(slot))] += share(expert(slot));
  }
}

int Placement::heaviest_gpu() const {
  return static_cast<int>(std::max_element(gpu_loads_.begin(), gpu_loads_.end()) - gpu_loads_.begin());
}

bool Placement::holds(int gpu, int expert) const {
  auto const from = experts_.begin() + gpu * cluster_.slots_per_gpu();
  auto const to = from + cluster_.slots_per_gpu();
  return std::find(from, to, expert) != to;
}

void Placement::link(int slot, int expert) {
  experts_[at(slot)] = expert;
  next_[at(slot)] = first_[at(expert)];
  first_[at(expert)] = slot;
}

void Placement::unlink(int slot) {
  int* from = &first_[at(expert(slot))];
  while (*from != slot) from = &next_[at(*from)];
  *from = next_slot(slot);
}

void Placement::swap(int slot, int other) {
  int const one = expert(slot);
  int const two = expert(other);
  Amount const heavier_by = share(two) - share(one);
  gpu_loads_[at(cluster_.gpu_of(slot))] += heavier_by;
  gpu_loads_[at(cluster_.gpu_of(other))] -= heavier_by;
  unlink(slot);
  unlink(other);
  link(slot, two);
  link(other, one);
}

Amount Placement::most_load_after_swap(int slot, int other) const {
  Amount const heavier_by = share(expert(other)) - share(expert(slot));
  return std::max(load(cluster_.gpu_of(slot)) + heavier_by, load(cluster_.gpu_of(other)) - heavier_by);
}

void Placement::set_replicas(int expert, int replicas) {
  Amount const share = loads_[at(expert)] / replicas;
  for (int slot = first_slot(expert); slot >= 0; slot = next_slot(slot))
    gpu_loads_[at(cluster_.gpu_of(slot))] += share - shares_[at(expert)];
  shares_[at(expert)] = share;
  replicas_[at(expert)] = replicas;
}

void Placement::replace(int slot, int expert) {
  int const before = this->expert(slot);
  int const gpu = cluster_.gpu_of(slot);
  unlink(slot);
  gpu_loads_[at(gpu)] -= share(before);
  set_replicas(before, replicas(before) - 1);
  set_replicas(expert, replicas(expert) + 1);
  gpu_loads_[at(gpu)] += share(expert);
  link(slot, expert);
}

void Placement::change(int slot, Amount by) {
  int const gpu = cluster_.gpu_of(slot);
  changes_[at(gpu)] += by;
  changed_.push_back(gpu);
}

Amount Placement::most_load_after_replace(int slot, int expert) {
  int const before = this->expert(slot);
  Amount const less_of_before = loads_[at(before)] / (replicas(before) - 1);
  Amount const more_of_new = next_share(expert);
  changed_.clear();
  for (int each = first_slot(before); each >= 0; each = next_slot(each))
    change(each, less_of_before - share(before));
  for (int each = first_slot(expert); each >= 0; each = next_slot(each)) change(each, more_of_new - share(expert));
  change(slot, more_of_new - less_of_before);
  Amount most = 0;
  for (int const gpu : changed_) most = std::max(most, load(gpu) + changes_[at(gpu)]);
  for (int const gpu : changed_) changes_[at(gpu)] = 0;
  return most;
}

}  // namespace switchyard::experts
