// One collective over the links: sends one message to every peer and receives one from each, all at the same time.
#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "node/peer_links.hpp"

namespace switchyard {

inline constexpr std::uint32_t message_magic = 0x474d5753;  // "SWMG"

// Precedes the bytes of a message, and its tag, where the link has tags. A descriptor travels with the first byte
// of the header.
struct MessageHeader {
  std::uint32_t magic = message_magic;
  Collective kind = Collective::barrier;
  std::uint64_t sequence = 0;
  std::uint64_t length = 0;
};
static_assert(sizeof(MessageHeader) == 24 && std::is_trivially_copyable_v<MessageHeader>);

// What a failure begins with; its text follows.
struct FailureHead {
  std::uint32_t code;
  std::int32_t peer;
};
inline constexpr std::size_t max_failure_text = 2000;
// The error of a number that came from another rank; one that is none is a SystemError.
constexpr ErrorCode error_code_of(std::uint32_t number) noexcept {
  bool const known = number >= 1 && number <= static_cast<std::uint32_t>(ErrorCode::system);
  return known ? static_cast<ErrorCode>(number) : ErrorCode::system;
}
// The failure that lies next on a socket, if one does, as an error of `rank`; it stays there. `tags` of the link.
std::optional<Error> peek_failure(int socket, MessageTags const& tags, int rank, std::string const& phase);

// Sends a notice, best effort, where no part of this rank's is half sent. The header says its kind, and which
// exchange it is about.
void send_notice(int socket, std::optional<LinkTags>& tags, MessageHeader header, ByteView bytes) noexcept;

class PeerExchange {
 public:
  struct Names {
    Member const& self;
    std::vector<Member> const& peers;  // by number
  };
  // `absent`, by number: peers to go on without, to which those are added that are lost or late; null: they throw.
  PeerExchange(std::span<UniqueFd const> sockets, std::span<std::optional<LinkTags>> tags, Names names,
               PeerMonitor& monitor, std::vector<bool>* absent);
  // After run() has thrown: has the peer got a part of this rank's part?
  [[nodiscard]] bool is_half_sent(std::size_t index) const noexcept {
    Peer const& peer = peers_[index];
    return peer.sent > 0 && peer.sent < sizeof header_ + mine_.size() + tag_bytes(index);
  }
  std::vector<Contribution> run(CollectiveCall const& call, std::span<std::byte const> mine, int fd,
                                Deadline const& deadline);

 private:
  struct Peer {
    std::size_t sent = 0;
    std::size_t received = 0;
    MessageHeader header{};
    Contribution theirs;
    Tag tag{};  // behind what they send, where the link has tags
    Tag tag_of_mine{};
    std::optional<Member> held_up_by;  // as it says
    bool done_sending = true;
    bool done_receiving = true;
    [[nodiscard]] bool done() const noexcept { return done_sending && done_receiving; }
  };

  [[nodiscard]] std::ptrdiff_t missing() const noexcept;
  [[nodiscard]] std::string text_of(std::size_t index) const { return names_.peers[index].text(); }
  [[nodiscard]] ErrorFacts facts_of(std::size_t index) const;
  void poll_once();
  [[nodiscard]] std::size_t tag_bytes(std::size_t index) const noexcept { return tags_[index] ? Tag{}.size() : 0; }
  [[nodiscard]] ByteView rest_of_mine(std::size_t index, Peer const& peer) const noexcept;
  [[nodiscard]] std::span<std::byte> room_for_theirs(Peer& peer) const noexcept;
  void check_tag(std::size_t index, Peer const& peer);
  void send_to(std::size_t index, Peer& peer);
  void receive_from(std::size_t index, Peer& peer);
  void read_some(std::size_t index, Peer& peer);
  [[nodiscard]] bool is_same_call(MessageHeader const& header) const noexcept;
  void show_header(std::size_t index, Peer& peer) const noexcept;
  void check_header(std::size_t index, Peer& peer) const;
  // Takes a notice in the place of the peer's part. Returns whether it was one.
  bool take_notice(std::size_t index, Peer& peer);
  void take_held_up(Peer& peer) const;
  [[noreturn]] void throw_failure(Peer const& peer) const;
  void tell_who_is_late();
  void tell_those_that_are_through(Member const& late) const noexcept;
  [[nodiscard]] std::size_t first_missing() const noexcept;
  [[nodiscard]] Member culprit(std::size_t index) const;
  void give_up_on_the_lost();
  // Throws, or goes on without the peer.
  void lost(std::size_t index);
  void late();
  void late_but_tolerated();
  void leave_out(std::size_t index);

  std::span<UniqueFd const> sockets_;
  std::span<std::optional<LinkTags>> tags_;
  Names names_;
  PeerMonitor& monitor_;
  std::vector<bool>* absent_;
  Deadline deadline_{std::chrono::milliseconds{0}};
  std::chrono::milliseconds whole_{0};  // what the deadline was at first
  bool extended_ = false;
  std::size_t most_ = max_message_bytes;
  std::function<void(Member const&)> on_held_up_;
  std::function<std::string(int)> silence_text_;
  std::optional<Member> told_;  // by on_held_up_
  MessageHeader header_{};
  std::span<std::byte const> mine_;
  int fd_ = -1;
  std::vector<Peer> peers_;
  std::vector<pollfd> polled_;
};

}  // namespace switchyard
