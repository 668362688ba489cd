#include "node/peer_exchange.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "bootstrap/socket.hpp"
#include "node/fd_message.hpp"

namespace switchyard {

namespace {

// How long a poll waits before we ask the monitor whether a peer has died without closing its link.
constexpr std::chrono::milliseconds slice{100};

bool would_block(int error) noexcept {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

}  // namespace

PeerExchange::PeerExchange(std::span<UniqueFd const> sockets, int rank, PeerMonitor& monitor,
                           std::vector<bool>* absent)
    : sockets_(sockets),
      rank_(rank),
      monitor_(monitor),
      absent_(absent),
      peers_(sockets.size()),
      polled_(sockets.size()) {}

std::vector<Contribution> PeerExchange::run(CollectiveCall call, std::span<std::byte const> mine, int fd,
                                            Deadline const& deadline) {
  header_ = {.magic = message_magic, .kind = call.kind, .sequence = call.sequence, .length = mine.size()};
  mine_ = mine;
  fd_ = fd;
  deadline_ = deadline;
  whole_ = deadline.remaining() + std::chrono::milliseconds{1};  // rounded up
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (sockets_[i] && (absent_ == nullptr || !(*absent_)[i]))
      peers_[i].done_sending = peers_[i].done_receiving = false;
  }
  while (missing() > 0) poll_once();
  std::vector<Contribution> all;
  for (Peer& peer : peers_) all.push_back(std::move(peer.theirs));
  return all;
}

std::ptrdiff_t PeerExchange::missing() const noexcept {
  return std::ranges::count_if(peers_, [](Peer const& peer) { return !peer.done(); });
}

void PeerExchange::poll_once() {
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    Peer const& peer = peers_[i];
    // A peer that is done may leave, so its hang-up is not watched any more.
    bool const leave_out = peer.done();
    int const events = (peer.done_sending ? 0 : POLLOUT) | (peer.done_receiving ? 0 : POLLIN);
    polled_[i] = {.fd = leave_out ? -1 : sockets_[i].get(), .events = static_cast<short>(events), .revents = 0};
  }
  bool const ready = poll_until(polled_, Deadline(std::min(slice, deadline_.remaining())));
  if (!ready) give_up_on_the_lost();
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (polled_[i].revents == 0) continue;
    // Receiving first: what a peer sent before it left still counts.
    receive_from(i, peers_[i]);
    send_to(i, peers_[i]);
  }
  // Once extended, it is over as soon as a single peer is missing: that one has had its whole time.
  if (missing() > 0 && (deadline_.expired() || (extended_ && missing() <= 1))) late();
}

void PeerExchange::send_to(std::size_t index, Peer& peer) {
  while (!peer.done_sending) {
    bool const in_header = peer.sent < sizeof header_;
    auto const part = in_header ? std::as_bytes(std::span(&header_, 1)).subspan(peer.sent)
                                : mine_.subspan(peer.sent - sizeof header_);
    ssize_t const sent = send_with_fd(sockets_[index].get(), part, peer.sent == 0 ? fd_ : -1);
    if (sent < 0 && would_block(errno)) return;
    if (sent < 0 && errno != EPIPE && errno != ECONNRESET) throw_errno(fmt::format("send to rank {}", index));
    if (sent < 0) return lost(index);
    peer.sent += static_cast<std::size_t>(sent);
    peer.done_sending = peer.sent == sizeof header_ + mine_.size();
  }
}

void PeerExchange::receive_from(std::size_t index, Peer& peer) {
  while (!peer.done_receiving) {
    std::size_t const before = peer.received;
    read_some(index, peer);
    if (peer.received == before || peer.done_receiving) return;  // done: it is left out
    if (peer.received == sizeof peer.header) check_header(index, peer);
    peer.done_receiving =
        peer.received >= sizeof peer.header && peer.received == sizeof peer.header + peer.theirs.bytes.size();
  }
}

// Reads no further than the end of the message, because the peer's next one may follow at once.
void PeerExchange::read_some(std::size_t index, Peer& peer) {
  bool const in_header = peer.received < sizeof peer.header;
  auto const room = in_header ? std::as_writable_bytes(std::span(&peer.header, 1)).subspan(peer.received)
                              : std::span(peer.theirs.bytes).subspan(peer.received - sizeof peer.header);
  ssize_t const got = receive_with_fd(sockets_[index].get(), room, peer.theirs.fd);
  if (got < 0 && would_block(errno)) return;
  if (got < 0 && errno != ECONNRESET) throw_errno(fmt::format("receive from rank {}", index));
  if (got <= 0) return lost(index);
  peer.received += static_cast<std::size_t>(got);
}

void PeerExchange::check_header(std::size_t index, Peer& peer) const {
  MessageHeader const& header = peer.header;
  require(header.magic == message_magic && header.length <= max_message_bytes, "rank {} sent something unknown",
          index);
  require(header.kind == header_.kind && header.sequence == header_.sequence,
          "rank {} calls {} (call {}) where rank {} calls {} (call {}): all ranks must make the same calls in the "
          "same order",
          index, name_of(header.kind), header.sequence, rank_, name_of(header_.kind), header_.sequence);
  require(header.kind != Collective::exchange_fd || peer.theirs.fd, "rank {} sent no descriptor", index);
  peer.theirs.bytes.resize(header.length);
}

// A child of a dead peer may hold its link open. This is called when nothing is ready, so all that the peer sent
// has been read.
void PeerExchange::give_up_on_the_lost() {
  for (std::size_t i = 0; i < peers_.size(); ++i)
    if (!peers_[i].done() && monitor_.is_lost(static_cast<int>(i))) lost(i);
}

void PeerExchange::lost(std::size_t index) {
  int const peer = static_cast<int>(index);
  monitor_.mark_lost(peer);
  if (absent_ != nullptr) return leave_out(index);
  throw PeerLost(fmt::format("{}: rank {} has left the job or died", name_of(header_.kind), peer),
                 {.rank = rank_, .peer = peer, .phase = std::string(name_of(header_.kind))});
}

// A late peer must not go on with those that went on without it, so it finds the link closed.
void PeerExchange::leave_out(std::size_t index) {
  monitor_.mark_lost(static_cast<int>(index));
  ::shutdown(sockets_[index].get(), SHUT_RDWR);
  (*absent_)[index] = true;
  peers_[index] = {};
}

// When several peers are late, some may be held up by the one that is: they waited for it in the collective before
// this one, as long as this rank has waited now. So they get the same time once more.
void PeerExchange::late_but_tolerated() {
  if (!extended_ && missing() > 1) {
    extended_ = true;
    deadline_ = Deadline(whole_);
    return;
  }
  for (std::size_t i = 0; i < peers_.size(); ++i)
    if (!peers_[i].done()) leave_out(i);
}

void PeerExchange::late() {
  if (absent_ != nullptr) return late_but_tolerated();
  auto const waiting = std::find_if(peers_.begin(), peers_.end(), [](Peer const& peer) { return !peer.done(); });
  int const peer = static_cast<int>(waiting - peers_.begin());
  throw Timeout(
      fmt::format(
          "{}: rank {} did not come within {} ms (timeout, or SWITCHYARD_RENDEZVOUS_TIMEOUT_MS); rank {} waited",
          name_of(header_.kind), peer, whole_.count(), rank_),
      {.rank = rank_, .peer = peer, .phase = std::string(name_of(header_.kind))});
}

}  // namespace switchyard
