// Which expert each physical slot of a layer holds, and what that means for the GPUs.
#pragma once

#include <span>
#include <vector>

#include "plan/experts/cluster.hpp"
#include "plan/experts/fixed_point.hpp"

namespace switchyard::experts {

class Placement {
 public:
  // `loads`: of each expert; they outlive this. `experts`: of each slot; each expert at least once.
  Placement(Cluster const& cluster, std::span<Amount const> loads, std::vector<int> experts);

  [[nodiscard]] Cluster const& cluster() const noexcept { return cluster_; }
  [[nodiscard]] std::vector<int> const& experts() const noexcept { return experts_; }
  [[nodiscard]] int expert(int slot) const { return experts_[at(slot)]; }
  [[nodiscard]] int replicas(int expert) const { return replicas_[at(expert)]; }
  // The load of each replica of an expert.
  [[nodiscard]] Amount share(int expert) const { return shares_[at(expert)]; }
  // The same with one replica more.
  [[nodiscard]] Amount next_share(int expert) const { return loads_[at(expert)] / (replicas(expert) + 1); }
  [[nodiscard]] Amount load(int gpu) const { return gpu_loads_[at(gpu)]; }
  // The first one of those that have the most load.
  [[nodiscard]] int heaviest_gpu() const;
  [[nodiscard]] Amount most_load() const { return load(heaviest_gpu()); }
  [[nodiscard]] bool holds(int gpu, int expert) const;
  // Whether a GPU would hold two replicas of an expert that has a GPU for each: the second gains nothing there.
  [[nodiscard]] bool crowds(int gpu, int expert) const {
    return replicas(expert) <= cluster_.gpus_per_domain() && holds(gpu, expert);
  }

  // The slots of an expert, one after the other; -1 behind the last one.
  [[nodiscard]] int first_slot(int expert) const { return first_[at(expert)]; }
  [[nodiscard]] int next_slot(int slot) const { return next_[at(slot)]; }

  // The experts of two slots change places.
  void swap(int slot, int other);
  // The more loaded one of the two GPUs after such a swap.
  [[nodiscard]] Amount most_load_after_swap(int slot, int other) const;

  // A slot gets another expert, whose replicas then have less to do, and the rest of the replicas of the one before
  // have more. That one needs a second replica.
  void replace(int slot, int expert);
  // The most loaded one of all GPUs that this changes.
  [[nodiscard]] Amount most_load_after_replace(int slot, int expert);

 private:
  void link(int slot, int expert);
  void unlink(int slot);
  void set_replicas(int expert, int replicas);
  void change(int slot, Amount by);

  Cluster cluster_;
  std::span<Amount const> loads_;
  std::vector<int> experts_;
  std::vector<int> replicas_;
  std::vector<Amount> shares_;
  std::vector<Amount> gpu_loads_;
  std::vector<int> first_;
  std::vector<int> next_;
  std::vector<Amount> changes_;  // of GPUs, while a replacement is tried
  std::vector<int> changed_;     // which GPUs these are
};

}  // namespace switchyard::experts
