// The ranks that map each other's memory, as one of them sees them: a Unix socket to every other rank, over which
// descriptors are handed, and whose closing shows that a peer is gone.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/unique_fd.hpp"
#include "bootstrap/store.hpp"
#include "node/member.hpp"
#include "node/rank_group.hpp"

namespace switchyard {

class PeerLinks;

// Who the ranks of a node are, by local rank.
struct NodeMembers {
  std::vector<Member> ranks;
  std::string key;  // of this node in the store
};

// Its ranks are local ranks.
class Node final : public RankGroup {
 public:
  // Collective over all ranks of the node. They find one another through the store, which is not used afterwards.
  // `timeout` is the deadline of this and of every collective. Throws Timeout, PeerLost, Unsupported (a rank is on
  // another host) or InvalidArgument (ranks disagree on the number of ranks).
  Node(std::shared_ptr<Store> store, int rank, int size, std::chrono::milliseconds timeout);
  // The same for one of several nodes. `rank` is the local rank. The store must stay until this returns on all
  // ranks.
  Node(Store& store, NodeMembers const& members, int rank, std::chrono::milliseconds timeout);
  ~Node() override;
  Node(Node const&) = delete;
  Node& operator=(Node const&) = delete;

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int size() const noexcept override { return size_; }
  // Who its ranks are in the job, by local rank.
  [[nodiscard]] std::vector<Member> const& members() const noexcept;
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine) override;
  void barrier() override;
  struct GatherTerms {
    std::size_t most = 0;  // bytes of a value; 0: as many as usual
    bool waits_elsewhere =
        false;  // a rank may come late because it waits for another node, as long as this one waits
    std::function<void(Member const&)> on_held_up{};  // as in CollectiveCall
    std::function<std::string(int)> silence_text{};   // the same
  };
  std::vector<std::vector<std::byte>> all_gather(std::span<std::byte const> mine, GatherTerms const& terms);
  // Tells the other ranks whom this one waits for, elsewhere, before it comes to the next collective.
  void say_held_up(Member const& culprit) noexcept;

  // Collective: hands `fd` to every other rank and returns theirs by rank, and a duplicate of `fd` in the own slot.
  std::vector<UniqueFd> exchange_fd(int fd);

  // What LossTolerance says. Absent ranks bring no bytes and no descriptor.
  void tolerate_loss(bool tolerated) noexcept;
  [[nodiscard]] bool is_absent(int rank) const noexcept override;

  // True once the peer's process has ended or it has left the node. Never true for the own rank. Any thread may
  // ask.
  [[nodiscard]] bool is_lost(int peer) const noexcept;

 private:
  void connect(Store& store, NodeMembers const& members);

  int rank_;
  int size_;
  std::chrono::milliseconds timeout_;
  std::uint64_t sequence_ = 0;  // of the next collective; peers compare it
  std::unique_ptr<PeerLinks> links_;
};

}  // namespace switchyard
