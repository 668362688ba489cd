// An endpoint that keeps every promise of transport.hpp and breaks what is not promised: a decorator of any other
// one, driven by a seed. What holds over it holds over any fabric.
//
// Faulty endpoints talk only to one another (protocol.hpp says why), and both of two must have added each other: a
// source with `window` writes to a peer that has not added it is held up until it does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "transport/faulty/faults.hpp"
#include "transport/faulty/incoming.hpp"
#include "transport/faulty/outgoing.hpp"
#include "transport/transport.hpp"

namespace switchyard::transport::faulty {

class FaultyEndpoint final : public Endpoint {
 public:
  // Throws InvalidArgument for faults that there are not.
  FaultyEndpoint(std::unique_ptr<Endpoint> below, Faults const& faults);

  [[nodiscard]] Capabilities const& capabilities() const noexcept override { return capabilities_; }
  [[nodiscard]] Opaque address() const override;
  Peer add_peer(Opaque const& address, std::string name) override;
  PeerRegion add_region(Peer peer, Opaque const& key) override;
  std::unique_ptr<Region> register_memory(std::span<std::byte> memory) override;
  Posted post(Write const& write) override;
  std::size_t poll(std::span<Event> events) override;
  [[nodiscard]] std::string reason(Peer peer) const override;

  // From now on nothing reaches the peer or comes from it, not even the rest of writes that are under way.
  void lose(Peer peer, Loss loss);

 private:
  struct KnownPeer {
    Peer below{};
    int number = 0;
    std::string name;
    bool lost_on_purpose = false;
  };
  struct KnownRegion {
    PeerRegion below{};
    Peer peer{};
    std::size_t bytes = 0;
  };
  struct LateEvent {
    Event event;
    std::uint64_t due = 0;
  };
  static constexpr std::int32_t nobody = -1;

  [[nodiscard]] Write checked(Write const& write) const;
  // Whether trouble goes on, or begins: `left` counts down what a trouble has left of its length.
  [[nodiscard]] bool in_trouble(int& left, double share, int longest);
  void drop_on_purpose();
  void drain();
  void take(Event const& event);
  void take_part(Part const& part);
  void hold(Event const& event) { late_.push_back({event, now_ + chance_.delay()}); }
  std::size_t give(std::span<Event> events);

  Faults faults_;
  Chance chance_{faults_};
  std::unique_ptr<Endpoint> below_;
  Capabilities capabilities_;
  std::vector<std::byte> doormat_ = std::vector<std::byte>(64);
  std::unique_ptr<Region> doormat_region_;
  std::vector<KnownPeer> peers_;
  std::vector<KnownRegion> regions_;
  std::vector<std::int32_t> peer_of_number_ = std::vector<std::int32_t>(max_endpoints, nobody);
  Outgoing outgoing_{*below_, faults_, chance_};
  Incoming incoming_;
  std::vector<std::pair<int, int>> unsaid_;  // number and half: what to say to sources that are no peers yet
  std::vector<LateEvent> late_;
  std::uint64_t now_ = 0;      // polls so far
  std::size_t under_way_ = 0;  // writes posted, with no `sent` or `failed` given yet
  std::uint64_t drops_seen_ = 0;
  int storm_left_ = 0;  // posts
  int stall_left_ = 0;  // polls
};

}  // namespace switchyard::transport::faulty
