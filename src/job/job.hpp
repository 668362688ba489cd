// All ranks that were started together, as one of them sees them.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bootstrap/mac.hpp"
#include "bootstrap/store.hpp"
#include "layout/topology.hpp"
#include "node/node.hpp"
#include "node/peer_links.hpp"
#include "node/rank_group.hpp"
#include "switchyard/error.hpp"

namespace switchyard {

struct JobTerms {
  int rank = 0;
  int size = 1;
  std::string node{};        // see WhoAndWhere in job/discovery.hpp
  std::optional<Key> key{};  // that ranks of other nodes must show; without one the job makes one
  std::string address{};     // where ranks of other nodes reach this machine; empty: Store::own_address()
  std::chrono::milliseconds timeout{0};
};

// Its collectives go along rails first, from a rank to its rail peers on other nodes, and then within each node. So
// a rank sends one message for each other node, and one for each other rank of its own.
class Job final : public RankGroup {
 public:
  // Collective over all ranks of the job. Finds out which of them share a node. `timeout` is the deadline of this
  // and of every collective. Throws Timeout, PeerLost, Unsupported (ranks that say that they share a node cannot),
  // InvalidArgument (ranks disagree on the number of ranks, a node has too many) or SystemError.
  Job(std::shared_ptr<Store> store, JobTerms const& terms);
  ~Job() override;

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override { return topology_.num_ranks(); }
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine) override;
  void barrier() override;
  [[nodiscard]] bool is_absent(int rank) const noexcept override { return absent_[static_cast<std::size_t>(rank)]; }

  [[nodiscard]] Topology const& topology() const noexcept { return topology_; }
  // The node of this rank.
  [[nodiscard]] std::shared_ptr<Node> const& node() const noexcept { return node_; }
  // Where ranks of other nodes reach this machine; empty when there is one node.
  [[nodiscard]] std::string const& address() const noexcept { return address_; }
  // That ranks of other nodes know, too, and nobody outside of the job. Only where there are several nodes.
  [[nodiscard]] Key const& key() const { return key_.value(); }
  // Of every collective.
  [[nodiscard]] std::chrono::milliseconds timeout() const noexcept { return timeout_; }
  // True once the process of a rank of this node, or of a rail neighbour, has ended or left the job. Never true for
  // others, nor for the own rank. Any thread may ask.
  [[nodiscard]] bool is_lost(int rank) const noexcept;
  // How long the machine of a rank of another node has been silent, for the end of an error's text; empty for those
  // of this node. Any thread may ask.
  [[nodiscard]] std::string silence_text(int rank) const;
  // What LossTolerance says. Throws Unsupported when the job has several nodes.
  void tolerate_loss(bool tolerated);

 private:
  // What a rank hears along its rails, or why it hears nothing.
  struct Heard;
  // Number of a rank among the rail neighbours; -1: it is none.
  [[nodiscard]] int rail_of(int rank) const noexcept;
  [[nodiscard]] Heard hear_rails(CollectiveCall call, std::span<std::byte const> mine);
  std::vector<std::vector<std::byte>> gather_over_nodes(Collective kind, std::span<std::byte const> mine);
  std::vector<std::vector<std::byte>> exchange_parts(CollectiveCall const& call, std::span<std::byte const> mine);
  [[nodiscard]] std::vector<std::byte> pack_of(Heard const& heard, std::span<std::byte const> mine) const;
  void take_over(std::span<std::byte const> pack, std::vector<std::vector<std::byte>>& all,
                 std::vector<bool>& found) const;
  void check_all_found(std::vector<bool> const& found) const;
  void note_absent();

  Topology topology_;
  int rank_;
  std::chrono::milliseconds timeout_;
  std::string address_;
  std::optional<Key> key_;
  std::shared_ptr<Node> node_;
  std::unique_ptr<PeerLinks> rails_;  // null when there is one node
  std::uint64_t sequence_ = 0;        // of the next collective over rails
  std::optional<Error> failed_;       // of a collective over rails: no other follows
  std::vector<bool> absent_;
};

// While it lives, collectives of the job go on without ranks that are lost or late, and these are absent from then
// on: the job counts them as lost, and its collectives fail again when this is over.
class LossTolerance {
 public:
  LossTolerance(Job& job, bool tolerated) : job_(tolerated ? &job : nullptr) {
    if (job_ != nullptr) job_->tolerate_loss(true);
  }
  ~LossTolerance() {
    if (job_ != nullptr) job_->tolerate_loss(false);  // it was true, so nothing throws
  }
  LossTolerance(LossTolerance const&) = delete;
  LossTolerance& operator=(LossTolerance const&) = delete;

 private:
  Job* job_;
};

}  // namespace switchyard
