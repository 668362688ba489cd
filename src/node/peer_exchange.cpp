#include "node/peer_exchange.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
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

std::optional<Error> peek_failure(int socket, MessageTags const& tags, int rank, std::string const& phase) {
  struct {
    MessageHeader header;
    FailureHead head;
    std::array<char, max_failure_text> text;
    Tag behind_the_longest;
  } said{};
  ssize_t const got = ::recv(socket, &said, sizeof said, MSG_PEEK | MSG_DONTWAIT);
  constexpr std::size_t least = sizeof said.header + sizeof said.head;
  bool const begins = got >= static_cast<ssize_t>(least) && said.header.magic == message_magic &&
                      said.header.kind == Collective::failed;
  if (!begins || said.header.length < sizeof said.head || said.header.length > sizeof said.head + max_failure_text)
    return std::nullopt;
  std::size_t const text = said.header.length - sizeof said.head;
  if (got < static_cast<ssize_t>(least + text + Tag{}.size())) return std::nullopt;
  auto const bytes = std::as_bytes(std::span(&said, 1));
  ByteView const covered = bytes.first(least + text);
  if (!equal_in_constant_time(tags.tag({covered}), bytes.subspan(covered.size(), Tag{}.size())))
    return std::nullopt;
  return Error(error_code_of(said.head.code), std::string(said.text.data(), text),
               {.rank = rank, .peer = said.head.peer, .phase = phase});
}

// Where a socket does not take it all at once, the peer sees the link end, and where it takes nothing, the peer's
// own deadline.
void send_notice(int socket, std::optional<LinkTags>& tags, MessageHeader header, ByteView bytes) noexcept {
  header.magic = message_magic;
  header.length = bytes.size();
  auto const head = std::as_bytes(std::span(&header, 1));
  std::vector<std::byte> message(head.begin(), head.end());
  message.insert(message.end(), bytes.begin(), bytes.end());
  if (tags) {
    Tag const tag = tags->to_send.tag({message});
    message.insert(message.end(), tag.begin(), tag.end());
  }
  ssize_t const sent = ::send(socket, message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  bool const whole = sent == static_cast<ssize_t>(message.size());
  if (sent > 0 && !whole) ::shutdown(socket, SHUT_RDWR);
  if (whole && tags) tags->to_send.advance();
}

PeerExchange::PeerExchange(std::span<UniqueFd const> sockets, std::span<std::optional<LinkTags>> tags, Names names,
                           PeerMonitor& monitor, std::vector<bool>* absent)
    : sockets_(sockets),
      tags_(tags),
      names_(names),
      monitor_(monitor),
      absent_(absent),
      peers_(sockets.size()),
      polled_(sockets.size()) {}

std::vector<Contribution> PeerExchange::run(CollectiveCall const& call, std::span<std::byte const> mine, int fd,
                                            Deadline const& deadline) {
  most_ = call.most;
  on_held_up_ = call.on_held_up;
  silence_text_ = call.silence_text;
  header_ = {.magic = message_magic, .kind = call.kind, .sequence = call.sequence, .length = mine.size()};
  mine_ = mine;
  fd_ = fd;
  deadline_ = deadline;
  whole_ = deadline.remaining() + std::chrono::milliseconds{1};  // rounded up
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (!sockets_[i] || (absent_ != nullptr && (*absent_)[i])) continue;
    peers_[i].done_sending = peers_[i].done_receiving = false;
    if (tags_[i]) peers_[i].tag_of_mine = tags_[i]->to_send.tag({std::as_bytes(std::span(&header_, 1)), mine_});
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
  tell_who_is_late();
  // Once extended, it is over as soon as a single peer is missing: that one has had its whole time.
  if (missing() > 0 && (deadline_.expired() || (extended_ && missing() <= 1))) late();
}

// The rest of that part of the message that is under way.
ByteView PeerExchange::rest_of_mine(std::size_t index, Peer const& peer) const noexcept {
  std::size_t at = peer.sent;
  if (at < sizeof header_) return std::as_bytes(std::span(&header_, 1)).subspan(at);
  at -= sizeof header_;
  if (at < mine_.size()) return mine_.subspan(at);
  return ByteView(peer.tag_of_mine).first(tag_bytes(index)).subspan(at - mine_.size());
}

std::span<std::byte> PeerExchange::room_for_theirs(Peer& peer) const noexcept {
  std::size_t at = peer.received;
  if (at < sizeof peer.header) return std::as_writable_bytes(std::span(&peer.header, 1)).subspan(at);
  at -= sizeof peer.header;
  if (at < peer.theirs.bytes.size()) return std::span(peer.theirs.bytes).subspan(at);
  return std::span(peer.tag).subspan(at - peer.theirs.bytes.size());
}

// Of a message that is all there.
void PeerExchange::check_tag(std::size_t index, Peer const& peer) {
  if (!tags_[index]) return;
  MessageTags& tags = tags_[index]->to_expect;
  Tag const expected = tags.tag({std::as_bytes(std::span(&peer.header, 1)), peer.theirs.bytes});
  if (!equal_in_constant_time(expected, peer.tag))
    throw SystemError(fmt::format("{}: {}: expected messages with the tags of their connection, seen one that was "
                                  "changed on its way; somebody else has a hand in this network",
                                  name_of(header_.kind), text_of(index)),
                      facts_of(index));
  tags.advance();
}

void PeerExchange::send_to(std::size_t index, Peer& peer) {
  while (!peer.done_sending) {
    auto const part = rest_of_mine(index, peer);
    ssize_t const sent = send_with_fd(sockets_[index].get(), part, peer.sent == 0 ? fd_ : -1);
    if (sent < 0 && would_block(errno)) return;
    if (sent < 0 && errno != EPIPE && errno != ECONNRESET) throw_errno(fmt::format("send to {}", text_of(index)));
    if (sent < 0) return lost(index);
    peer.sent += static_cast<std::size_t>(sent);
    peer.done_sending = peer.sent == sizeof header_ + mine_.size() + tag_bytes(index);
    if (peer.done_sending && tags_[index]) tags_[index]->to_send.advance();
  }
}

void PeerExchange::receive_from(std::size_t index, Peer& peer) {
  while (!peer.done_receiving) {
    std::size_t const before = peer.received;
    read_some(index, peer);
    if (peer.received == before || peer.done_receiving) return;  // done: it is left out
    if (peer.received >= sizeof peer.header && take_notice(index, peer)) continue;
    if (peer.received == sizeof peer.header) {
      if (!is_same_call(peer.header)) show_header(index, peer);
      check_header(index, peer);
    }
    peer.done_receiving = peer.received >= sizeof peer.header &&
                          peer.received == sizeof peer.header + peer.theirs.bytes.size() + tag_bytes(index);
    if (peer.done_receiving) check_tag(index, peer);
  }
}

// Reads no further than the end of the message, because the peer's next one may follow at once.
void PeerExchange::read_some(std::size_t index, Peer& peer) {
  ssize_t const got = receive_with_fd(sockets_[index].get(), room_for_theirs(peer), peer.theirs.fd);
  if (got < 0 && would_block(errno)) return;
  if (got < 0 && errno != ECONNRESET) throw_errno(fmt::format("receive from {}", text_of(index)));
  if (got <= 0) return lost(index);
  peer.received += static_cast<std::size_t>(got);
}

bool PeerExchange::take_notice(std::size_t index, Peer& peer) {
  MessageHeader const& header = peer.header;
  if (header.magic != message_magic) return false;
  bool const held_up = header.kind == Collective::held_up;
  if (!held_up && header.kind != Collective::failed) return false;
  std::size_t const least = held_up ? sizeof(Member) : sizeof(FailureHead);
  std::size_t const most = held_up ? least : least + max_failure_text;
  require(header.length >= least && header.length <= most, "{} sent something unknown", text_of(index));
  peer.theirs.bytes.resize(header.length);
  if (peer.received < sizeof header + header.length + tag_bytes(index)) return true;
  check_tag(index, peer);
  if (!held_up) throw_failure(peer);
  take_held_up(peer);
  return true;
}

// One of an exchange before this says nothing any more: the peer has brought its part to that meanwhile.
void PeerExchange::take_held_up(Peer& peer) const {
  Member by;
  std::memcpy(&by, peer.theirs.bytes.data(), sizeof by);
  if (peer.header.sequence == header_.sequence) peer.held_up_by = by;
  peer.theirs.bytes.clear();
  peer.received = 0;
}

void PeerExchange::throw_failure(Peer const& peer) const {
  FailureHead head{};
  std::memcpy(&head, peer.theirs.bytes.data(), sizeof head);
  auto const text = std::span(peer.theirs.bytes).subspan(sizeof head);
  throw_error(error_code_of(head.code), std::string(reinterpret_cast<char const*>(text.data()), text.size()),
              {.rank = names_.self.rank, .peer = head.peer, .phase = std::string(name_of(header_.kind))});
}

// Of several ranks that are missing, one that says nothing is to blame rather than one that waits itself.
std::size_t PeerExchange::first_missing() const noexcept {
  auto const silent =
      std::ranges::find_if(peers_, [](Peer const& peer) { return !peer.done() && !peer.held_up_by; });
  auto const waiting = std::ranges::find_if(peers_, [](Peer const& peer) { return !peer.done(); });
  return static_cast<std::size_t>((silent != peers_.end() ? silent : waiting) - peers_.begin());
}

Member PeerExchange::culprit(std::size_t index) const {
  return peers_[index].held_up_by.value_or(names_.peers[index]);
}

void PeerExchange::tell_who_is_late() {
  if (missing() == 0 || deadline_.remaining() > whole_ / 2) return;
  Member const late = culprit(first_missing());
  if (told_ && told_->rank == late.rank) return;
  told_ = late;
  tell_those_that_are_through(late);
  if (on_held_up_) on_held_up_(late);
}

// A peer that has sent its part may have all the others, too, which this rank has not: it is then in the exchange
// after this one, and waits for this rank there.
void PeerExchange::tell_those_that_are_through(Member const& late) const noexcept {
  MessageHeader const about_the_next{.kind = Collective::held_up, .sequence = header_.sequence + 1};
  for (std::size_t i = 0; i < peers_.size(); ++i)
    if (sockets_[i] && peers_[i].done() && (absent_ == nullptr || !(*absent_)[i]))
      send_notice(sockets_[i].get(), tags_[i], about_the_next, std::as_bytes(std::span(&late, 1)));
}

bool PeerExchange::is_same_call(MessageHeader const& header) const noexcept {
  return header.kind == header_.kind && header.sequence == header_.sequence;
}

// The peer is to see that the calls differ, too, and not only that this rank gives up. Where the socket does not
// take the rest of the header, it sees just that.
void PeerExchange::show_header(std::size_t index, Peer& peer) const noexcept {
  if (peer.sent >= sizeof header_) return;
  auto const rest = std::as_bytes(std::span(&header_, 1)).subspan(peer.sent);
  ssize_t const sent = ::send(sockets_[index].get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent > 0) peer.sent += static_cast<std::size_t>(sent);
}

void PeerExchange::check_header(std::size_t index, Peer& peer) const {
  MessageHeader const& header = peer.header;
  require(header.magic == message_magic && header.length <= most_, "{} sent something unknown", text_of(index));
  require(is_same_call(header),
          "{} calls {} (call {}) where {} calls {} (call {}): all ranks must make the same calls in the same order",
          text_of(index), name_of(header.kind), header.sequence, names_.self.text(), name_of(header_.kind),
          header_.sequence);
  require(header.kind != Collective::exchange_fd || peer.theirs.fd, "{} sent no descriptor", text_of(index));
  peer.theirs.bytes.resize(header.length);
}

// A child of a dead peer may hold its link open. This is called when nothing was ready, but since then a peer may
// have sent its part and gone, so what it sent is read once more.
void PeerExchange::give_up_on_the_lost() {
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (peers_[i].done() || !monitor_.is_lost(static_cast<int>(i))) continue;
    receive_from(i, peers_[i]);
    send_to(i, peers_[i]);
    if (!peers_[i].done()) lost(i);
  }
}

void PeerExchange::lost(std::size_t index) {
  monitor_.mark_lost(static_cast<int>(index));
  if (absent_ != nullptr) return leave_out(index);
  throw PeerLost(fmt::format("{}: {} has left the job or died", name_of(header_.kind), text_of(index)),
                 facts_of(index));
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
  std::size_t const index = first_missing();
  Member const late = culprit(index);
  std::string const between =
      late.rank == names_.peers[index].rank ? "" : fmt::format(" for {}, which waits for it, too", text_of(index));
  throw Timeout(
      fmt::format("{}: {} did not come within {} ms (timeout, or SWITCHYARD_RENDEZVOUS_TIMEOUT_MS); {} waited{}{}",
                  name_of(header_.kind), late.text(), whole_.count(), names_.self.text(), between,
                  silence_text_ ? silence_text_(late.rank) : ""),
      {.rank = names_.self.rank, .peer = late.rank, .phase = std::string(name_of(header_.kind))});
}

ErrorFacts PeerExchange::facts_of(std::size_t index) const {
  return {.rank = names_.self.rank, .peer = names_.peers[index].rank, .phase = std::string(name_of(header_.kind))};
}

}  // namespace switchyard
