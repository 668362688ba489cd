// One Unix socket to every other rank of the node. Collectives run over them, descriptors are handed over them, and
// when one closes, the peer is gone.
//
// Collectives do not use the store: what a rank has sent over a socket stays readable after it has left, so rank 0
// (which serves the store) may leave right after a barrier that others are still in; and nothing piles up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/deadline.hpp"
#include "base/unique_fd.hpp"
#include "node/peer_monitor.hpp"
#include "switchyard/error.hpp"

namespace switchyard {

// The most bytes that a rank brings to a collective.
inline constexpr std::size_t max_message_bytes = std::size_t{16} << 20;

enum class Collective : std::uint32_t { barrier = 1, all_gather, exchange_fd };
std::string_view name_of(Collective kind) noexcept;

// What a rank brings to a collective.
struct Contribution {
  std::vector<std::byte> bytes;
  UniqueFd fd;
};

struct CollectiveCall {
  Collective kind = Collective::barrier;
  std::uint64_t sequence = 0;
};

class PeerLinks {
 public:
  // `sockets`: by rank, non-blocking, none in the own slot.
  PeerLinks(std::vector<UniqueFd> sockets, int rank);
  ~PeerLinks();
  PeerLinks(PeerLinks const&) = delete;
  PeerLinks& operator=(PeerLinks const&) = delete;

  // Sends `mine` (and `fd`, unless -1) to every other rank and returns theirs; the own slot stays empty. One thread
  // at a time calls it. Throws Timeout and PeerLost, which name the rank, and InvalidArgument when the ranks make
  // different calls. After that the links refuse further calls with the same error, because messages may be half
  // sent.
  std::vector<Contribution> exchange(CollectiveCall call, std::span<std::byte const> mine, int fd,
                                     Deadline const& deadline);

  // While it is tolerated, exchanges go on without peers that are lost or late, now and later. A late one finds its
  // link to this rank closed.
  void tolerate_loss(bool tolerated) noexcept { tolerates_loss_ = tolerated; }
  [[nodiscard]] bool is_absent(int peer) const noexcept { return absent_[static_cast<std::size_t>(peer)]; }

  // Never true for the own rank.
  [[nodiscard]] bool is_lost(int peer) const noexcept { return monitor_.is_lost(peer); }

 private:
  int rank_;
  std::vector<UniqueFd> sockets_;
  PeerMonitor monitor_;  // after the sockets, so that it stops before they close
  bool tolerates_loss_ = false;
  std::vector<bool> absent_;  // by rank
  std::optional<Error> failed_;
};

}  // namespace switchyard
