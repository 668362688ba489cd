#include "node/peer_mesh.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <thread>

#include "base/check.hpp"
#include "base/log.hpp"
#include "bootstrap/socket.hpp"
#include "node/agreement.hpp"
#include "node/link_socket.hpp"
#include "node/peer_card.hpp"

namespace switchyard {

namespace {

using std::chrono::milliseconds;

// How long a wait lasts before we check whether the ranks that we know of still live.
constexpr milliseconds card_slice{500};
constexpr milliseconds hello_timeout{5000};
constexpr std::size_t max_strangers = 128;

// A connection that has not said yet which rank it is of.
struct Stranger {
  UniqueFd socket;
  Deadline deadline;
  LinkHello hello{};
  std::size_t received = 0;
};

class Mesh {
 public:
  Mesh(Store& store, NodeMembers const& members, int rank, Deadline const& deadline)
      : store_(store),
        members_(members),
        rank_(rank),
        size_(static_cast<int>(members.ranks.size())),
        deadline_(deadline),
        links_(members.ranks.size()) {}

  std::vector<UniqueFd> build() {
    publish();
    // The secret comes first: with it a rank can be distinguished from a stranger.
    read(key("secret"), 0, secret_);
    for (int peer = 0; peer < size_; ++peer) cards_.push_back(read_card(peer));
    for (int peer = 0; peer < rank_; ++peer) connect_to(peer);
    while (missing() > 0) accept_some();
    return std::move(links_);
  }

 private:
  void publish();
  PeerCard read_card(int peer);
  void check_card(PeerCard const& card, int peer) const;
  template <typename T>
  void read(std::string const& key, int peer, T& value);
  void connect_to(int peer);
  void accept_some();
  void accept_all();
  void read_hellos();
  void read_hello(Stranger& stranger);
  void admit(Stranger& stranger);
  void check_alive();
  [[nodiscard]] long missing() const { return std::count_if(links_.begin(), links_.end(), is_none) - 1; }
  static bool is_none(UniqueFd const& fd) noexcept { return !fd; }
  [[nodiscard]] std::string key(std::string_view what) const { return fmt::format("{}/{}", members_.key, what); }
  [[nodiscard]] Member const& member(int local_rank) const {
    return members_.ranks[static_cast<std::size_t>(local_rank)];
  }
  [[nodiscard]] std::string name(int local_rank) const { return member(local_rank).text(); }
  [[nodiscard]] ErrorFacts facts(int peer) const {
    return {.rank = member(rank_).rank, .peer = member(peer).rank, .phase = "rendezvous"};
  }
  [[noreturn]] void lost(int peer) const {
    throw PeerLost(fmt::format("rendezvous: {} has left the job or died", name(peer)), facts(peer));
  }
  [[noreturn]] void late(int peer) const {
    throw Timeout(fmt::format("rendezvous: {} did not come in time", name(peer)), facts(peer));
  }

  Store& store_;
  NodeMembers const& members_;
  int rank_;
  int size_;
  Deadline deadline_;
  UniqueFd listener_;
  RandomBytes secret_{};
  std::vector<PeerCard> cards_;
  std::vector<UniqueFd> links_;
  std::vector<Stranger> strangers_;
};

void Mesh::publish() {
  PeerCard const card{.magic = link_magic,
                      .version = link_version,
                      .rank = static_cast<std::uint32_t>(rank_),
                      .size = static_cast<std::uint32_t>(size_),
                      .pid = static_cast<std::uint64_t>(::getpid()),
                      .socket_name = random_bytes(),
                      .host = this_host()};
  listener_ = listen_abstract(socket_name_text(card.socket_name));
  if (rank_ == 0) store_.set(key("secret"), bytes_of(random_bytes()));
  store_.set(key(fmt::format("card/{}", rank_)), bytes_of(card));
}

PeerCard Mesh::read_card(int peer) {
  PeerCard card{};
  read(key(fmt::format("card/{}", peer)), peer, card);
  check_card(card, peer);
  return card;
}

void Mesh::check_card(PeerCard const& card, int peer) const {
  require(card.magic == link_magic && card.version == link_version,
          "rendezvous: {} runs another version of Switchyard", name(peer));
  require(card.size == static_cast<std::uint32_t>(size_),
          "rendezvous: {} says that its node has {} ranks, {} expected {}", name(peer), card.size, name(rank_),
          size_);
  if (card.host != this_host())
    throw Unsupported(
        fmt::format("rendezvous: {} (pid {}) is on another host, or in another network namespace, than {}, so they "
                    "cannot share a node",
                    name(peer), card.pid, name(rank_)),
        facts(peer));
}

// Waits in slices, because the store does not show that a rank has died.
template <typename T>
void Mesh::read(std::string const& key, int peer, T& value) {
  for (;;) {
    try {
      auto const bytes = store_.get(key, Deadline(std::min(card_slice, deadline_.remaining())));
      require(bytes.size() == sizeof value, "rendezvous: '{}' has {} bytes, expected {}", key, bytes.size(),
              sizeof value);
      std::memcpy(&value, bytes.data(), sizeof value);
      return;
    } catch (Timeout const&) {
      if (deadline_.expired()) late(peer);
      check_alive();
    }
  }
}

void Mesh::connect_to(int peer) {
  constexpr milliseconds pause{5};
  std::string const socket_name = socket_name_text(cards_[static_cast<std::size_t>(peer)].socket_name);
  UniqueFd socket;
  for (;;) {
    ConnectOutcome const outcome = connect_abstract(socket_name, socket);
    if (outcome == ConnectOutcome::connected) break;
    if (outcome == ConnectOutcome::gone) lost(peer);
    if (deadline_.expired()) late(peer);
    std::this_thread::sleep_for(pause);
  }
  if (!is_from_our_user(socket.get()))
    throw SystemError(fmt::format("rendezvous: the socket of {} is of another user", name(peer)), facts(peer));
  LinkHello const hello{
      .magic = link_magic, .version = link_version, .rank = static_cast<std::uint16_t>(rank_), .secret = secret_};
  // An empty socket always takes so few bytes.
  ssize_t const sent = ::send(socket.get(), &hello, sizeof hello, MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(sizeof hello)) lost(peer);
  links_[static_cast<std::size_t>(peer)] = std::move(socket);
}

// One round of waiting for ranks that are to connect to us. It also watches those that have.
void Mesh::accept_some() {
  bool const has_room = strangers_.size() < max_strangers;
  std::vector<pollfd> polled{{.fd = has_room ? listener_.get() : -1, .events = POLLIN, .revents = 0}};
  for (UniqueFd const& link : links_) polled.push_back({.fd = link.get(), .events = POLLRDHUP, .revents = 0});
  for (Stranger const& stranger : strangers_)
    polled.push_back({.fd = stranger.socket.get(), .events = POLLIN, .revents = 0});
  if (!poll_until(polled, Deadline(std::min(card_slice, deadline_.remaining())))) {
    if (deadline_.expired())
      late(static_cast<int>(std::find_if(links_.begin() + rank_ + 1, links_.end(), is_none) - links_.begin()));
    check_alive();
  }
  // No rank leaves of its own will before all have come, so this one is lost.
  for (int peer = 0; peer < size_; ++peer)
    if (polled[static_cast<std::size_t>(peer) + 1].revents != 0) lost(peer);
  if (polled[0].revents != 0) accept_all();
  read_hellos();
}

void Mesh::accept_all() {
  while (strangers_.size() < max_strangers) {
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (!socket && errno != EAGAIN) throw_errno("rendezvous: accept");
    if (!socket) return;
    if (is_from_our_user(socket.get()))
      strangers_.push_back({std::move(socket), Deadline(hello_timeout)});
    else
      logger().warn("rendezvous: {}: refused a connection of another user", name(rank_));
  }
}

void Mesh::read_hellos() {
  for (Stranger& stranger : strangers_) read_hello(stranger);
  std::erase_if(strangers_, [](Stranger const& stranger) { return !stranger.socket; });
}

void Mesh::read_hello(Stranger& stranger) {
  auto* const hello = reinterpret_cast<std::byte*>(&stranger.hello);
  std::size_t const room = sizeof stranger.hello - stranger.received;
  ssize_t const got = ::recv(stranger.socket.get(), hello + stranger.received, room, 0);
  bool const silent = got < 0 && (errno == EAGAIN || errno == EINTR);
  if (got > 0) stranger.received += static_cast<std::size_t>(got);
  if (stranger.received == sizeof stranger.hello) return admit(stranger);
  if (silent ? !stranger.deadline.expired() : got > 0) return;
  // A peer that checks whether we live connects and says nothing, so that is not worth a warning.
  auto const level = stranger.received == 0 && !silent ? LogLevel::debug : LogLevel::warn;
  logger().log(level, "rendezvous: {}: closed a connection that did not say who it is", name(rank_));
  stranger.socket.reset();
}

void Mesh::admit(Stranger& stranger) {
  LinkHello const& hello = stranger.hello;
  int const peer = hello.rank;
  bool const expected = hello.magic == link_magic && hello.version == link_version && hello.secret == secret_ &&
                        peer > rank_ && peer < size_ && !links_[static_cast<std::size_t>(peer)];
  if (expected)
    links_[static_cast<std::size_t>(peer)] = std::move(stranger.socket);
  else
    logger().warn("rendezvous: {}: refused a connection with a wrong hello", name(rank_));
  stranger.socket.reset();
}

// A rank listens until it is connected to all. So a rank that has published a card, is not connected to us and does
// not listen has left, unless it connected just now and is in our queue.
void Mesh::check_alive() {
  for (int peer = 0; peer < static_cast<int>(cards_.size()); ++peer) {
    auto const index = static_cast<std::size_t>(peer);
    UniqueFd probe;
    if (peer == rank_ || links_[index]) continue;
    if (connect_abstract(socket_name_text(cards_[index].socket_name), probe) != ConnectOutcome::gone) continue;
    accept_all();
    read_hellos();
    if (!links_[index]) lost(peer);
  }
}

}  // namespace

std::vector<UniqueFd> connect_mesh(Store& store, NodeMembers const& members, int rank, Deadline const& deadline) {
  if (members.ranks.size() == 1) return std::vector<UniqueFd>(1);
  return Mesh(store, members, rank, deadline).build();
}

}  // namespace switchyard
