#include "job/rails.hpp"

#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <list>
#include <optional>

#include "base/check.hpp"
#include "base/log.hpp"
#include "bootstrap/address.hpp"
#include "bootstrap/handshake.hpp"
#include "bootstrap/heartbeat.hpp"
#include "bootstrap/socket.hpp"
#include "job/failure.hpp"
#include "job/message.hpp"
#include "node/peer_exchange.hpp"

namespace switchyard {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds handshake_timeout{5000};
constexpr milliseconds slice{500};
constexpr std::size_t max_strangers = 128;
constexpr char const* all_key = "job/rails";
constexpr char const* failed_key = "job/failed";
constexpr std::size_t max_addresses = std::size_t{64} << 20;

// Rails are idle for as long as nothing is agreed on: firewalls forget such connections, and a machine without
// power ends none.
void set_options(int socket) {
  int const on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  start_heartbeats(socket);
}

std::string addresses_key(int node) {
  return fmt::format("job/rails/{}", node);
}

UniqueFd tcp_socket(int family) {
  UniqueFd socket(check_call(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "rails: socket"));
  set_options(socket.get());
  return socket;
}

// A connection on which the ends still show each other who they are.
struct Newcomer {
  UniqueFd socket;
  Handshake handshake;
  Deadline deadline;
  int rank = -1;  // whom this rank connects to; -1: it was accepted, and who it is shows later
  bool connecting = false;
  std::vector<std::byte> output{};
};

class Rails {
 public:
  Rails(RailTerms const& terms, Deadline const& deadline)
      : terms_(terms),
        deadline_(deadline),
        ranks_(terms.topology.rail_neighbours_of(terms.rank)),
        links_(ranks_.size()),
        tags_(ranks_.size()) {}

  // The links that were made are left for take_links() also when it throws.
  void build() {
    int const rank = terms_.rank;
    // Only when all listen does anybody know where, so nobody is refused for coming early.
    if (auto const failure = failure_of([&] { step_together(terms_.node, rank, [&] { listen(); }); })) {
      if (terms_.node.rank() == 0) publish(failure, {});  // so that the other nodes do not wait for the addresses
      throw *failure;
    }
    auto const texts = terms_.node.all_gather(std::as_bytes(std::span(own_address_)));
    std::vector<std::byte> all;
    step_together(terms_.node, rank, [&] { all = share_addresses(texts); });
    auto const shared = terms_.node.all_gather(all, {.most = max_addresses});
    step_together(terms_.node, rank, [&] {
      note_addresses(shared.at(0));
      for (int const neighbour : ranks_)
        if (neighbour < rank) start_connecting(neighbour);
      while (missing() != ranks_.size()) serve_some();
    });
  }
  std::vector<UniqueFd> take_links() { return std::move(links_); }
  std::vector<std::optional<LinkTags>> take_tags() { return std::move(tags_); }

  [[nodiscard]] std::vector<Member> members() const {
    std::vector<Member> members;
    for (int const rank : ranks_) members.push_back(member(rank));
    return members;
  }

 private:
  [[nodiscard]] Member member(int rank) const { return {rank, terms_.topology.node_of(rank)}; }
  [[nodiscard]] ErrorFacts facts(int peer) const {
    return {.rank = terms_.rank, .peer = peer, .phase = "rendezvous"};
  }
  // The first neighbour without a link.
  [[nodiscard]] std::size_t missing() const {
    return static_cast<std::size_t>(std::ranges::find_if(links_, [](UniqueFd const& link) { return !link; }) -
                                    links_.begin());
  }

  void listen();
  std::vector<std::byte> share_addresses(std::vector<std::vector<std::byte>> const& texts) const;
  void publish(std::optional<Error> const& failure, std::vector<std::byte> const& bytes) const;
  [[nodiscard]] std::vector<std::byte> published_at(std::string const& key, int rank) const;
  void note_addresses(std::span<std::byte const> all);
  [[nodiscard]] std::string const& address_of(int rank) const;
  void start_connecting(int rank);
  void serve_some();
  void check_failed() const;
  [[noreturn]] void throw_end_of(std::size_t index) const;
  void accept_all();
  void serve(Newcomer& newcomer, short events);
  bool finish_connecting(Newcomer& newcomer);
  void receive(Newcomer& newcomer);
  void send(Newcomer& newcomer);
  void admit(Newcomer& newcomer);
  void drop(Newcomer& newcomer, std::string_view why);
  [[noreturn]] void late(int rank) const;

  RailTerms const& terms_;
  Deadline deadline_;
  UniqueFd listener_;
  std::string own_address_;
  std::vector<std::string> addresses_;         // by number in ranks_
  std::vector<int> ranks_;                     // neighbours
  std::vector<UniqueFd> links_;                // by number in ranks_
  std::vector<std::optional<LinkTags>> tags_;  // of those that there are
  std::list<Newcomer> newcomers_;
};

void Rails::listen() {
  InetAddress const address = address_to_listen_on(terms_.address, 0, "SWITCHYARD_ADDRESS");
  require(!address.is_any(),
          "SWITCHYARD_ADDRESS: expected one address, by which other nodes reach this one, seen {}", terms_.address);
  listener_ = tcp_socket(address.family());
  std::string const what = fmt::format("rails: listen on {} (SWITCHYARD_ADDRESS)", terms_.address);
  check_call(::bind(listener_.get(), address.get(), address.length()), what);
  check_call(::listen(listener_.get(), SOMAXCONN), what);
  InetAddress bound;
  check_call(::getsockname(listener_.get(), bound.get(), bound.make_room()), what);
  own_address_ = bound.text();
}

// The first rank of each node puts its node's addresses into the store, the first of all joins them, and the first
// of each reads that: two requests a node, and one for each of them by rank 0.
std::vector<std::byte> Rails::share_addresses(std::vector<std::vector<std::byte>> const& texts) const {
  if (terms_.node.rank() != 0) return {};
  int const node = terms_.topology.node_of(terms_.rank);
  MessageWriter own;
  for (auto const& text : texts) own.put_bytes(text);
  if (node != 0) {
    publish(std::nullopt, own.bytes());
    return published_at(all_key, 0);
  }
  MessageWriter all;
  all.put_bytes(own.bytes());
  auto const failure = failure_of([&] {
    for (int other = 1; other < terms_.topology.num_nodes(); ++other)
      all.put_bytes(published_at(addresses_key(other), terms_.topology.rank_of(other, 0)));
  });
  publish(failure, all.bytes());
  if (failure) throw *failure;
  return all.bytes();
}

// By the first rank of a node: what the others need, or why they do not get it.
void Rails::publish(std::optional<Error> const& failure, std::vector<std::byte> const& bytes) const {
  MessageWriter message;
  put_failure(message, failure);
  message.put_bytes(bytes);
  int const node = terms_.topology.node_of(terms_.rank);
  terms_.store.set(node == 0 ? std::string(all_key) : addresses_key(node), message.bytes());
}

std::vector<std::byte> Rails::published_at(std::string const& key, int rank) const {
  std::vector<std::byte> bytes;
  try {
    bytes = terms_.store.get(key, deadline_);
  } catch (Timeout const&) {
    throw Timeout(fmt::format("rendezvous: {} did not say in time where ranks of other nodes can be reached",
                              member(rank).text()),
                  facts(rank));
  }
  MessageReader message(bytes, key);
  throw_failure_in(message, terms_.rank);
  auto const found = message.get_bytes();
  return {found.begin(), found.end()};
}

void Rails::note_addresses(std::span<std::byte const> all) {
  MessageReader nodes(all, "addresses of all ranks");
  addresses_.resize(ranks_.size());
  for (int node = 0; node < terms_.topology.num_nodes(); ++node) {
    MessageReader texts(nodes.get_bytes(), "addresses of a node's ranks");
    for (int const rank : terms_.topology.ranks_of(node)) {
      std::string text = texts.get_text();
      auto const found = std::ranges::find(ranks_, rank);
      if (found != ranks_.end()) addresses_[static_cast<std::size_t>(found - ranks_.begin())] = std::move(text);
    }
  }
}

std::string const& Rails::address_of(int rank) const {
  return addresses_[static_cast<std::size_t>(std::ranges::find(ranks_, rank) - ranks_.begin())];
}

void Rails::start_connecting(int rank) {
  HostPort const place = parse_host_port(address_of(rank), fmt::format("the address of {}", member(rank).text()));
  std::vector<InetAddress> const found = resolve(place);
  require(!found.empty(), "the address of {}: expected one that can be resolved, seen {}", member(rank).text(),
          place.text());
  Newcomer newcomer{.socket = tcp_socket(found.front().family()),
                    .handshake = Handshake::connect(terms_.key, {.purpose = HandshakePurpose::control,
                                                                 .self = {.rank = terms_.rank},
                                                                 .peer = {.rank = rank}}),
                    .deadline = deadline_,
                    .rank = rank,
                    .connecting = true};
  if (::connect(newcomer.socket.get(), found.front().get(), found.front().length()) < 0 && errno != EINPROGRESS)
    throw_errno(fmt::format("rails: connect to {} at {}", member(rank).text(), place.text()));
  newcomers_.push_back(std::move(newcomer));
}

// One round of waiting for neighbours that connect, or are being connected to.
void Rails::serve_some() {
  bool const has_room = newcomers_.size() < max_strangers + ranks_.size();
  std::vector<pollfd> polled{{.fd = has_room ? listener_.get() : -1, .events = POLLIN, .revents = 0}};
  for (Newcomer const& each : newcomers_) {
    bool const writes = each.connecting || !each.output.empty();
    polled.push_back(
        {.fd = each.socket.get(), .events = static_cast<short>(writes ? POLLIN | POLLOUT : POLLIN), .revents = 0});
  }
  std::size_t const links_begin = polled.size();
  for (UniqueFd const& link : links_) polled.push_back({.fd = link.get(), .events = POLLRDHUP, .revents = 0});
  if (!poll_until(polled, Deadline(std::min(slice, deadline_.remaining())))) check_failed();
  if (deadline_.expired()) late(ranks_[missing()]);
  for (std::size_t i = 0; i < links_.size(); ++i)
    if (polled[links_begin + i].revents != 0) throw_end_of(i);
  std::size_t index = 1;
  for (Newcomer& each : newcomers_) serve(each, polled[index++].revents);
  std::erase_if(newcomers_, [](Newcomer const& each) { return !each.socket; });
  if (polled[0].revents != 0) accept_all();
}

// Throws the reason of the first rank that gave up, if one has. A rank that waits to be connected to has no other
// way to learn that who should connect has given up, and a connection that ends does not say why.
void Rails::check_failed() const {
  constexpr milliseconds a_moment{20};
  std::vector<std::byte> bytes;
  try {
    bytes = terms_.store.get(failed_key, Deadline(a_moment));
  } catch (Timeout const&) {
    return;
  }
  MessageReader message(bytes, failed_key);
  throw_failure_in(message, terms_.rank);
}

// A neighbour that gives up says why before it goes.
void Rails::throw_end_of(std::size_t index) const {
  int const rank = ranks_[index];
  auto const failure = peek_failure(links_[index].get(), tags_[index]->to_expect, terms_.rank, "rendezvous");
  if (failure) throw *failure;
  check_failed();
  throw PeerLost(fmt::format("rendezvous: {} has left the job or died", member(rank).text()), facts(rank));
}

void Rails::accept_all() {
  while (newcomers_.size() < max_strangers + ranks_.size()) {
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (!socket && errno != EAGAIN) throw_errno("rails: accept");
    if (!socket) return;
    set_options(socket.get());
    newcomers_.push_back(
        {.socket = std::move(socket),
         .handshake = Handshake::accept(
             terms_.key, {.purpose = HandshakePurpose::control, .self = {.rank = terms_.rank}, .peer = {}}),
         .deadline = Deadline(std::max(handshake_timeout, deadline_.remaining() / 4))});
  }
}

void Rails::serve(Newcomer& newcomer, short events) {
  if (events == 0) {
    if (newcomer.deadline.expired()) drop(newcomer, "it did not say in time who it is");
    return;
  }
  if (newcomer.connecting && !finish_connecting(newcomer)) return;
  receive(newcomer);
  if (!newcomer.socket) return;
  send(newcomer);
  if (!newcomer.socket) return;
  if (newcomer.handshake.state() == HandshakeState::failed)
    return drop(newcomer, text_of(newcomer.handshake.problem()));
  if (newcomer.handshake.state() == HandshakeState::done && newcomer.output.empty()) admit(newcomer);
}

// Its end has published where it listens, so a refusal means that it has gone.
bool Rails::finish_connecting(Newcomer& newcomer) {
  int error = 0;
  socklen_t length = sizeof error;
  check_call(::getsockopt(newcomer.socket.get(), SOL_SOCKET, SO_ERROR, &error, &length), "rails: SO_ERROR");
  if (error == EINPROGRESS || error == EAGAIN) return false;
  std::string const name = member(newcomer.rank).text();
  if (error == ECONNREFUSED || error == ECONNRESET) check_failed();
  if (error == ECONNREFUSED || error == ECONNRESET)
    throw PeerLost(fmt::format("rendezvous: {} has left the job or died", name), facts(newcomer.rank));
  if (error != 0) {
    errno = error;
    throw_errno(
        fmt::format("rails: connect to {} (see docs/cluster.md on firewalls and SWITCHYARD_ADDRESS)", name));
  }
  newcomer.connecting = false;
  return true;
}

void Rails::receive(Newcomer& newcomer) {
  std::array<std::byte, 256> bytes;  // more than any message of a handshake
  while (newcomer.handshake.due() > 0) {
    ssize_t const got =
        ::recv(newcomer.socket.get(), bytes.data(), std::min(bytes.size(), newcomer.handshake.due()), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return drop(newcomer, "it ended before it had said who it is");
    newcomer.handshake.feed(std::span(bytes).first(static_cast<std::size_t>(got)));
    if (newcomer.handshake.state() != HandshakeState::ongoing) return;
  }
}

void Rails::send(Newcomer& newcomer) {
  auto const more = newcomer.handshake.take_output();
  newcomer.output.insert(newcomer.output.end(), more.begin(), more.end());
  while (!newcomer.output.empty()) {
    ssize_t const sent =
        ::send(newcomer.socket.get(), newcomer.output.data(), newcomer.output.size(), MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) return drop(newcomer, "it ended before it had said who it is");
    newcomer.output.erase(newcomer.output.begin(), newcomer.output.begin() + sent);
  }
}

void Rails::admit(Newcomer& newcomer) {
  int const rank = newcomer.handshake.peer().rank;
  auto const found = std::ranges::find(ranks_, newcomer.rank >= 0 ? newcomer.rank : rank);
  auto const index = static_cast<std::size_t>(found - ranks_.begin());
  bool const expected = found != ranks_.end() && !links_[index] && (newcomer.rank >= 0 || rank > terms_.rank);
  if (!expected) return drop(newcomer, fmt::format("rank {} was not expected to connect", rank));
  links_[index] = std::move(newcomer.socket);
  tags_[index] = LinkTags{newcomer.handshake.tags_to_send(), newcomer.handshake.tags_to_expect()};
  newcomer.socket.reset();
}

// Whoever came uncalled harms nobody. A neighbour that this rank connects to must be let through.
void Rails::drop(Newcomer& newcomer, std::string_view why) {
  if (newcomer.rank >= 0) {
    std::string const name = member(newcomer.rank).text();
    bool const mismatch = newcomer.handshake.state() == HandshakeState::failed;
    if (mismatch)
      throw InvalidArgument(fmt::format("rendezvous: {} and rank {} do not agree: {}", name, terms_.rank, why),
                            facts(newcomer.rank));
    check_failed();
    throw PeerLost(fmt::format("rendezvous: {} has left the job or died: {}", name, why), facts(newcomer.rank));
  }
  // A health check connects and says nothing, so that is not worth a warning.
  auto const level = newcomer.handshake.state() == HandshakeState::failed ? LogLevel::warn : LogLevel::debug;
  logger().log(level, "rendezvous: rank {}: refused a connection: {}", terms_.rank, why);
  newcomer.socket.reset();
}

void Rails::late(int rank) const {
  std::string const where =
      rank < terms_.rank ? fmt::format("at {}", address_of(rank)) : fmt::format("to {}", own_address_);
  throw Timeout(
      fmt::format(
          "rendezvous: {} and rank {} did not connect in time ({} {}); is there a firewall between the nodes, "
          "or another address to use (SWITCHYARD_ADDRESS)?",
          member(rank).text(), terms_.rank, rank < terms_.rank ? "tried" : "waited for connections", where),
      facts(rank));
}

}  // namespace

std::unique_ptr<PeerLinks> connect_rails(RailTerms const& terms, Deadline const& deadline) {
  Rails rails(terms, deadline);
  auto const failure = failure_of([&] { rails.build(); });
  Member const self{terms.rank, terms.topology.node_of(terms.rank)};
  auto links = std::make_unique<PeerLinks>(rails.take_links(), self, rails.members(), rails.take_tags());
  if (failure) {
    MessageWriter message;
    put_failure(message, failure);
    // Before any connection ends, so that whoever sees one end finds the reason. Where another rank has failed
    // before, its reason stands there already.
    static_cast<void>(failure_of([&] { terms.store.set(failed_key, message.bytes()); }));
    links->say_failed(*failure);
    throw_error(failure->code(), failure->what(),
                {.rank = terms.rank, .peer = failure->peer(), .phase = failure->phase()});
  }
  return links;
}

}  // namespace switchyard
