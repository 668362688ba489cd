#include "node/heap_growth.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "base/check.hpp"
#include "base/deadline.hpp"
#include "base/log.hpp"
#include "node/fd_message.hpp"
#include "node/link_socket.hpp"

namespace switchyard {

namespace {

constexpr std::uint32_t growth_magic = 0x48475753;  // "SWGH"

// How long a wait for answers lasts before it asks who has gone.
constexpr std::chrono::milliseconds between_looks{20};
// How long a message may wait for room in the addressee's queue, which its thread empties.
constexpr std::chrono::milliseconds longest_send{1000};
constexpr std::chrono::microseconds between_sends{200};

}  // namespace

// One datagram. All of it is sent as it lies.
struct GrowthLinks::Message {
  std::uint32_t magic = growth_magic;
  Kind kind = Kind::grow;
  RandomBytes secret{};  // of the addressee
  std::uint64_t from = 0;
  std::uint64_t sequence = 0;  // of the sender; an answer repeats it
  std::uint64_t offset = 0;    // of a part; in a shrink: where the segment ends from then on
  std::uint64_t bytes = 0;
  GpuMemoryHandle handle{};
  std::uint64_t refused = 0;       // in an answer: 1 with what follows
  std::array<char, 256> reason{};  // ends with a zero
};

class GrowthLinks::Outbox {
 public:
  explicit Outbox(GrowthLinks& links) : links_(links) {}

  void add(std::size_t peer, Message const& message) {
    waiting_.push_back({peer, message, Deadline(longest_send)});
  }
  // Who does not read its answer waits in vain, by its own deadline.
  void send() {
    std::erase_if(waiting_, [this](Answer const& each) {
      return each.deadline.expired() || links_.try_send(each.peer, each.message, -1) != Sending::full;
    });
  }
  [[nodiscard]] bool empty() const noexcept { return waiting_.empty(); }

 private:
  struct Answer {
    std::size_t peer;
    Message message;
    Deadline deadline;
  };
  GrowthLinks& links_;
  std::vector<Answer> waiting_;
};

GrowthLinks::GrowthLinks() : address_{.name = random_bytes(), .secret = random_bytes()} {
  socket_ = datagram_abstract(socket_name_text(address_.name));
}

GrowthLinks::~GrowthLinks() {
  stop_.signal();
  if (thread_.joinable()) thread_.join();
}

void GrowthLinks::start(Terms terms) {
  terms_ = std::move(terms);
  links_.resize(terms_.peers.size());
  owed_.resize(terms_.peers.size());
  for (Peer const& peer : terms_.peers) at_first_.push_back(peer.segment->bytes());
  if (!terms_.peers.empty()) thread_ = std::thread([this] { serve(); });
}

void GrowthLinks::grow(std::size_t bytes) {
  SegmentPart const part = terms_.own->grow(bytes);
  auto const refusal =
      tell_all({.kind = Kind::grow, .offset = part.offset, .bytes = part.bytes, .handle = part.handle},
               part.fd.get(), terms_.timeout);
  if (!refusal) return;
  shrink(part.offset);
  throw_error(refusal->code, refusal->text, {.rank = terms_.rank});
}

void GrowthLinks::shrink(std::size_t bytes) {
  // A peer that does not answer keeps the memory, and harms nobody: nothing is addressed there.
  if (auto const refusal = tell_all({.kind = Kind::shrink, .offset = bytes}, -1, longest_send))
    logger().debug("rank {}: giving back memory of the heap: {}", terms_.rank, refusal->text);
  terms_.own->shrink(bytes);
}

std::optional<Refusal> GrowthLinks::tell_all(Message const& message, int fd, std::chrono::milliseconds timeout) {
  Message mine = message;
  {
    std::lock_guard const lock(mutex_);
    mine.sequence = ++sequence_;
    for (Link& link : links_) {
      link.awaited = true;
      link.refusal.reset();
    }
  }
  for (std::size_t peer = 0; peer < links_.size(); ++peer) {
    std::optional<Refusal> refusal;
    bool const sent = tell(peer, mine, fd, refusal);
    std::lock_guard const lock(mutex_);
    links_[peer].awaited = links_[peer].awaited && sent;
    if (refusal) links_[peer].refusal = std::move(refusal);
  }
  return wait_for_answers(timeout);
}

// Returns whether an answer is to be awaited. A peer that has gone maps nothing, and needs to know nothing.
bool GrowthLinks::tell(std::size_t peer, Message const& message, int fd, std::optional<Refusal>& refusal) {
  int const rank = terms_.peers[peer].rank;
  bool silent = false;
  {
    std::lock_guard const lock(mutex_);
    silent = links_[peer].silent;
  }
  std::optional<std::size_t>& owed = owed_[peer];
  Sending seen = Sending::stuck;
  if (!silent && owed) seen = send_to(peer, {.kind = Kind::shrink, .offset = *owed}, -1);
  if (seen == Sending::done) owed.reset();
  if (!silent && !owed) seen = send_to(peer, message, fd);
  if (seen == Sending::done) return true;
  if (seen == Sending::gone || terms_.is_gone(rank)) return false;
  // It must not miss that memory went: the next that comes would begin elsewhere than it believes.
  if (message.kind == Kind::shrink) owed = std::min(owed.value_or(message.offset), message.offset);
  refusal = Refusal{ErrorCode::timeout, fmt::format("rank {} reads no messages about memory", rank)};
  return false;
}

std::optional<std::size_t> GrowthLinks::missing_peer() {
  for (std::size_t peer = 0; peer < links_.size(); ++peer) {
    Link& link = links_[peer];
    if (link.awaited && terms_.is_gone(terms_.peers[peer].rank)) link.awaited = false;
    if (link.awaited) return peer;
  }
  return std::nullopt;
}

std::optional<Refusal> GrowthLinks::wait_for_answers(std::chrono::milliseconds timeout) {
  Deadline const deadline(timeout);
  std::unique_lock lock(mutex_);
  for (;;) {
    auto const missing = missing_peer();
    if (!missing) break;
    if (deadline.expired()) {
      for (Link& link : links_) link.silent = link.silent || link.awaited;
      return Refusal{ErrorCode::timeout, fmt::format("rank {} did not map the memory within {} ms",
                                                     terms_.peers[*missing].rank, timeout.count())};
    }
    answered_.wait_for(lock, between_looks);
  }
  for (Link const& link : links_)
    if (link.refusal) return link.refusal;
  return std::nullopt;
}

GrowthLinks::Sending GrowthLinks::send_to(std::size_t peer, Message const& message, int fd) {
  Deadline const deadline(longest_send);
  for (;;) {
    Sending const seen = try_send(peer, message, fd);
    if (seen != Sending::full) return seen;
    if (deadline.expired()) return Sending::stuck;
    std::this_thread::sleep_for(between_sends);  // poll() does not say when a peer's queue has room
  }
}

GrowthLinks::Sending GrowthLinks::try_send(std::size_t peer, Message message, int fd) {
  message.secret = terms_.peers[peer].address.secret;
  message.from = static_cast<std::uint64_t>(terms_.rank);
  AbstractAddress const to(socket_name_text(terms_.peers[peer].address.name));
  if (send_with_fd_to({to.plain(), to.length}, socket_.get(), std::as_bytes(std::span(&message, 1)), fd) >= 0)
    return Sending::done;
  if (errno == ECONNREFUSED) return Sending::gone;
  return errno == EAGAIN || errno == EINTR ? Sending::full : Sending::stuck;
}

// Nothing that a peer sends ends the thread.
void GrowthLinks::serve() noexcept {
  bool warned = false;
  Outbox answers(*this);
  for (;;) {
    std::array<pollfd, 2> polled{{{.fd = stop_.fd(), .events = POLLIN, .revents = 0},
                                  {.fd = socket_.get(), .events = POLLIN, .revents = 0}}};
    constexpr int a_moment = 1;  // ms
    int const ready = ::poll(polled.data(), polled.size(), answers.empty() ? -1 : a_moment);
    if (ready < 0 && errno != EINTR) {
      logger().error("rank {}: no more growth of peers' heaps: poll: {}", terms_.rank, std::strerror(errno));
      return;
    }
    if (polled[0].revents != 0) return;
    try {
      receive(answers);
      answers.send();
    } catch (std::exception const& error) {
      // Once: whoever sends such messages must not fill the log.
      logger().log(warned ? LogLevel::debug : LogLevel::warn, "rank {}: a message about a peer's heap: {}",
                   terms_.rank, error.what());
      warned = true;
    }
  }
}

void GrowthLinks::receive(Outbox& answers) {
  for (;;) {
    Message message;
    UniqueFd fd;
    ssize_t const got = receive_with_fd(socket_.get(), std::as_writable_bytes(std::span(&message, 1)), fd);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) throw_errno("receive");
    require(got == sizeof message && message.magic == growth_magic && message.secret == address_.secret,
            "expected {} bytes with this rank's secret, seen {} of somebody else's", sizeof message, got);
    auto const found = std::ranges::find_if(
        terms_.peers, [&](Peer const& each) { return static_cast<std::uint64_t>(each.rank) == message.from; });
    require(found != terms_.peers.end(), "expected one of a peer, seen one of rank {}", message.from);
    auto const peer = static_cast<std::size_t>(found - terms_.peers.begin());
    message.reason.back() = '\0';
    if (message.kind == Kind::answer) {
      note_answer(peer, message);
    } else {
      answers.add(peer, obey(peer, message, std::move(fd)));
      answers.send();
    }
  }
}

GrowthLinks::Message GrowthLinks::obey(std::size_t peer, Message const& message, UniqueFd fd) {
  Segment& segment = *terms_.peers[peer].segment;
  auto const refusal = refusal_of([&] {
    if (message.kind == Kind::shrink) {
      require(message.offset >= at_first_[peer], "end of a segment: expected {} or more, seen {}", at_first_[peer],
              message.offset);
      return segment.shrink(message.offset);
    }
    require(message.kind == Kind::grow, "kind: expected 1 or 2, seen {}", static_cast<unsigned>(message.kind));
    segment.append(
        {.offset = message.offset, .bytes = message.bytes, .fd = std::move(fd), .handle = message.handle});
  });
  Message answer{.kind = Kind::answer, .sequence = message.sequence};
  if (refusal) {
    answer.refused = 1;
    std::string const text = fmt::format("rank {} cannot map it: {}", terms_.rank, refusal->text);
    text.copy(answer.reason.data(), answer.reason.size() - 1);
  }
  return answer;
}

void GrowthLinks::note_answer(std::size_t peer, Message const& message) {
  std::lock_guard const lock(mutex_);
  Link& link = links_[peer];
  link.silent = false;
  if (message.sequence != sequence_ || !link.awaited) return;  // of a wait that is over
  if (message.refused != 0) link.refusal = Refusal{ErrorCode::system, message.reason.data()};
  link.awaited = false;
  answered_.notify_all();
}

}  // namespace switchyard
