// One collective over the links: sends one message to every peer and receives one from each, all at the same time.
#pragma once

#include <poll.h>

#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "node/peer_links.hpp"

namespace switchyard {

inline constexpr std::uint32_t message_magic = 0x474d5753;  // "SWMG"

// Precedes the bytes of a message. A descriptor travels with the first byte of the header.
struct MessageHeader {
  std::uint32_t magic;
  Collective kind;
  std::uint64_t sequence;
  std::uint64_t length;
};
static_assert(sizeof(MessageHeader) == 24 && std::is_trivially_copyable_v<MessageHeader>);

class PeerExchange {
 public:
  // `absent`, by rank: peers to go on without, to which those are added that are lost or late; null: they throw.
  PeerExchange(std::span<UniqueFd const> sockets, int rank, PeerMonitor& monitor, std::vector<bool>* absent);
  std::vector<Contribution> run(CollectiveCall call, std::span<std::byte const> mine, int fd,
                                Deadline const& deadline);

 private:
  struct Peer {
    std::size_t sent = 0;
    std::size_t received = 0;
    MessageHeader header{};
    Contribution theirs;
    bool done_sending = true;
    bool done_receiving = true;
    [[nodiscard]] bool done() const noexcept { return done_sending && done_receiving; }
  };

  [[nodiscard]] std::ptrdiff_t missing() const noexcept;
  void poll_once();
  void send_to(std::size_t index, Peer& peer);
  void receive_from(std::size_t index, Peer& peer);
  void read_some(std::size_t index, Peer& peer);
  void check_header(std::size_t index, Peer& peer) const;
  void give_up_on_the_lost();
  // Throws, or goes on without the peer.
  void lost(std::size_t index);
  void late();
  void late_but_tolerated();
  void leave_out(std::size_t index);

  std::span<UniqueFd const> sockets_;
  int rank_;
  PeerMonitor& monitor_;
  std::vector<bool>* absent_;
  Deadline deadline_{std::chrono::milliseconds{0}};
  std::chrono::milliseconds whole_{0};  // what the deadline was at first
  bool extended_ = false;
  MessageHeader header_{};
  std::span<std::byte const> mine_;
  int fd_ = -1;
  std::vector<Peer> peers_;
  std::vector<pollfd> polled_;
};

}  // namespace switchyard
