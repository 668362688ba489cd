// Which physical experts lie where, in one layer.
#pragma once

#include <cstddef>

#include "switchyard/experts.hpp"

namespace switchyard::experts {

// Experts, slots, GPUs and nodes are numbered by int, and vectors are not.
constexpr std::size_t at(int index) noexcept {
  return static_cast<std::size_t>(index);
}

struct Cluster {
  int experts = 1;
  int replicas = 1;
  int groups = 1;
  int nodes = 1;
  int gpus = 1;

  explicit Cluster(ExpertArgs const& args)
      : experts(static_cast<int>(args.experts)),
        replicas(static_cast<int>(args.replicas)),
        groups(static_cast<int>(args.groups)),
        nodes(static_cast<int>(args.nodes)),
        gpus(static_cast<int>(args.gpus)) {}

  // An expert's replicas stay inside of one domain: a node where groups do, else the whole cluster.
  [[nodiscard]] constexpr int domains() const noexcept { return groups % nodes == 0 ? nodes : 1; }
  // What moves between domains as a whole: a group, or else all experts.
  [[nodiscard]] constexpr int units() const noexcept { return groups % nodes == 0 ? groups : 1; }
  [[nodiscard]] constexpr int unit_of(int expert) const noexcept { return expert / (experts / units()); }

  [[nodiscard]] constexpr int slots_per_gpu() const noexcept { return replicas / gpus; }
  [[nodiscard]] constexpr int gpus_per_domain() const noexcept { return gpus / domains(); }
  [[nodiscard]] constexpr int slots_per_domain() const noexcept { return replicas / domains(); }
  [[nodiscard]] constexpr int gpu_of(int slot) const noexcept { return slot / slots_per_gpu(); }
  [[nodiscard]] constexpr int node_of(int slot) const noexcept { return slot / (replicas / nodes); }
  [[nodiscard]] constexpr int domain_of(int slot) const noexcept { return slot / slots_per_domain(); }
};

}  // namespace switchyard::experts
