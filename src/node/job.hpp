// All ranks that were started together, as one of them sees them.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "bootstrap/store.hpp"
#include "layout/topology.hpp"
#include "node/node.hpp"
#include "node/rank_group.hpp"

namespace switchyard {

// A job has one node today, so what is asked of all its ranks is asked of that node's.
class Job final : public RankGroup {
 public:
  // Collective over all ranks of the job; see Node for `timeout` and errors. Throws Unsupported for a topology of
  // several nodes.
  Job(std::shared_ptr<Store> store, Topology topology, int rank, std::chrono::milliseconds timeout);

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override { return topology_.num_ranks(); }
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine) override {
    return node_->all_gather(mine);
  }
  void barrier() override { node_->barrier(); }
  [[nodiscard]] bool is_absent(int rank) const noexcept override { return node_->is_absent(rank); }

  // The node of this rank.
  [[nodiscard]] std::shared_ptr<Node> const& node() const noexcept { return node_; }

 private:
  Topology topology_;
  int rank_;
  std::shared_ptr<Node> node_;
};

// While it lives, collectives of the job go on without ranks that are lost or late, and these are absent from then
// on: the job counts them as lost, and its collectives fail again when this is over.
class LossTolerance {
 public:
  LossTolerance(Job& job, bool tolerated) : node_(tolerated ? job.node() : nullptr) {
    if (node_) node_->tolerate_loss(true);
  }
  ~LossTolerance() {
    if (node_) node_->tolerate_loss(false);
  }
  LossTolerance(LossTolerance const&) = delete;
  LossTolerance& operator=(LossTolerance const&) = delete;

 private:
  std::shared_ptr<Node> node_;
};

}  // namespace switchyard
