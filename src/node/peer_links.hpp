// A socket to each of some peers: Unix sockets to the other ranks of the node, over which descriptors are handed,
// too, or TCP sockets to ranks of other nodes. Collectives run over them, and when one closes, the peer is gone.
//
// Collectives do not use the store: what a rank has sent over a socket stays readable after it has left, so rank 0
// (which serves the store) may leave right after a barrier that others are still in; and nothing piles up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "bootstrap/mac.hpp"
#include "node/member.hpp"
#include "node/peer_monitor.hpp"
#include "switchyard/error.hpp"

namespace switchyard {

// The most bytes that a rank brings to a collective.
inline constexpr std::size_t max_message_bytes = std::size_t{16} << 20;

// What a message is: a part in a collective, or a notice about a rank that has not sent its part yet.
enum class Collective : std::uint32_t { barrier = 1, all_gather, exchange_fd, held_up, failed };
std::string_view name_of(Collective kind) noexcept;

// What a rank brings to a collective.
struct Contribution {
  std::vector<std::byte> bytes;
  UniqueFd fd;
};

struct CollectiveCall {
  Collective kind = Collective::barrier;
  std::uint64_t sequence = 0;
  std::size_t most = max_message_bytes;  // bytes that a peer may bring
  // Called when half of the time has passed, and again when that changes: which rank is to blame so far. Whoever
  // waits for this rank is to know it.
  std::function<void(Member const&)> on_held_up{};
  // Of the rank that is late: what there is to say of its machine, for the end of an error's text.
  std::function<std::string(int rank)> silence_text{};
};

// Of a link that crosses a network: what both ends of its handshake make the tags of their messages with. Each
// message then has one behind its bytes, so that nobody on the way can change, repeat or leave out any. Nobody else
// reaches the Unix sockets of a node, whose messages have none.
struct LinkTags {
  MessageTags to_send;
  MessageTags to_expect;
};

class PeerLinks {
 public:
  // Peers have numbers. By number: `sockets`, non-blocking, none for this rank itself, who it is, and its tags.
  PeerLinks(std::vector<UniqueFd> sockets, Member const& self, std::vector<Member> members,
            std::vector<std::optional<LinkTags>> tags = {});
  ~PeerLinks();
  PeerLinks(PeerLinks const&) = delete;
  PeerLinks& operator=(PeerLinks const&) = delete;

  // Sends `mine` (and `fd`, unless -1) to every peer and returns theirs; where there is no socket it is empty. One
  // thread at a time calls it. Throws Timeout and PeerLost, which name the rank, and InvalidArgument when the ranks
  // make different calls. After that the links refuse further calls with the same error, because messages may be
  // half sent.
  std::vector<Contribution> exchange(CollectiveCall const& call, std::span<std::byte const> mine, int fd,
                                     Deadline const& deadline);

  // For use between exchanges. Peers learn why this rank does not bring its part to the next one: it waits for a
  // rank elsewhere, or it has failed. A peer that waits then blames that rank, or throws that error.
  void say_held_up(Member const& culprit) noexcept;
  void say_failed(Error const& error) noexcept;

  // While it is tolerated, exchanges go on without peers that are lost or late, now and later. A late one finds its
  // link to this rank closed.
  void tolerate_loss(bool tolerated) noexcept { tolerates_loss_ = tolerated; }
  [[nodiscard]] bool is_absent(int peer) const noexcept { return absent_[static_cast<std::size_t>(peer)]; }
  [[nodiscard]] std::vector<Member> const& members() const noexcept { return members_; }

  // Never true for the own rank.
  [[nodiscard]] bool is_lost(int peer) const noexcept { return monitor_.is_lost(peer); }
  // How long the peer's machine has been silent, for the end of an error's text; empty for the own machine.
  [[nodiscard]] std::string silence_text(int peer) const;

 private:
  void say(Collective kind, std::span<std::byte const> bytes) noexcept;

  Member self_;
  std::vector<Member> members_;
  std::vector<UniqueFd> sockets_;
  std::vector<std::optional<LinkTags>> tags_;
  PeerMonitor monitor_;     // after the sockets, so that it stops before they close
  std::uint64_t next_ = 0;  // the number of the next exchange; a notice is about that one
  bool tolerates_loss_ = false;
  std::vector<bool> absent_;  // by number
  std::optional<Error> failed_;
};

}  // namespace switchyard
