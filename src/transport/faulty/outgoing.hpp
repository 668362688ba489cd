// The sending side of a faulty endpoint: writes that wait for a sequence number, their parts that wait for their
// turn, and what the endpoint below has of them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "transport/faulty/protocol.hpp"
#include "transport/transport.hpp"

namespace switchyard::transport::faulty {

// How writes to a peer that is lost end. What it sends is no longer seen either.
enum class Loss : std::uint8_t {
  silent,  // they are `sent`, and never arrive: a provider that completes them locally
  stuck,   // nothing ever comes of them, and they count as posted for good
  failed,  // they fail, and later ones are refused
};

class Outgoing {
 public:
  Outgoing(Endpoint& below, Faults const& faults, Chance& chance)
      : below_(below), faults_(faults), chance_(chance) {}

  // Of the next peer: what the endpoint below calls it, and a region of it to which writes without bytes may go.
  void add_peer(Peer below, PeerRegion doormat);
  // `from` and `into` are those of the endpoint below, `to` is this one's.
  void add(Write const& write);
  // Its source has said that all writes of a half of the window are finished.
  void finished(Peer peer, int half) { peers_[index(peer)].half_free[static_cast<std::size_t>(half)] = true; }
  // Says so to a source.
  void say_finished(Peer peer, int half);
  // What the endpoint below reported.
  void take(Event const& event);
  void lose(Peer peer, Loss loss);
  [[nodiscard]] std::optional<Loss> loss(Peer peer) const { return peers_[index(peer)].loss; }
  // Hands parts whose time has come to the endpoint below, as long as it takes them.
  void step(std::uint64_t now);
  // The ends of writes, since the last call.
  std::vector<Event> take_events() { return std::exchange(events_, {}); }

 private:
  enum class Attempt : std::uint8_t { posted, busy, refused };
  struct PeerState {
    Peer below{};
    PeerRegion doormat{};
    std::uint64_t next_sequence = 0;
    std::array<bool, 2> half_free{true, true};
    std::optional<Loss> loss{};
  };
  struct Ongoing {
    Write write;
    int to_post = 0;    // parts; before they are cut, one stands for all
    int under_way = 0;  // parts that the endpoint below has
    bool failed = false;
  };
  // A write to the endpoint below; its context is the id of the ongoing write, or `nobody`.
  struct Held {
    Write write;
    std::uint64_t due = 0;
  };
  static constexpr std::uint64_t nobody = 0;
  static std::size_t index(Peer peer) noexcept { return static_cast<std::size_t>(peer); }

  void start_waiting(std::uint64_t now);
  [[nodiscard]] std::optional<int> next_sequence(PeerState& peer);
  void cut(std::uint64_t id, int sequence, std::uint64_t now);
  [[nodiscard]] std::vector<Write> parts_of(Write const& write);
  [[nodiscard]] std::vector<Held> take_due(std::uint64_t now);
  // False: the endpoint below is busy.
  [[nodiscard]] bool hand_over(Write const& part);
  [[nodiscard]] Attempt attempt(Write const& part, Peer peer);
  void drop_parts(std::uint64_t id);
  // Reports the write if nothing of it is left to do.
  void settle(std::uint64_t id);

  Endpoint& below_;
  Faults const& faults_;
  Chance& chance_;
  std::vector<PeerState> peers_;
  std::map<std::uint64_t, Ongoing> ongoing_;
  std::vector<std::uint64_t> waiting_;  // ids of writes without a sequence number
  std::vector<Held> held_;
  std::vector<Event> events_;
  std::uint64_t next_id_ = nobody + 1;
};

}  // namespace switchyard::transport::faulty
