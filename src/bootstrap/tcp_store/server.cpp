#include "bootstrap/tcp_store/server.hpp"

#include <fcntl.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <deque>
#include <map>

#include "base/check.hpp"
#include "base/log.hpp"
#include "bootstrap/tcp_store/connection.hpp"

namespace switchyard {

namespace {

// Few enough to cost nothing. Others wait in the queue of the listener, and ranks are through within milliseconds.
constexpr std::size_t max_strangers = 128;
// After which a stranger makes room where others wait. A rank that has lost its place this way dials again.
constexpr std::chrono::milliseconds patience{250};

// Of a token that cannot be found by trying: 16 digits of hexadecimal are 64 bits.
constexpr std::size_t long_enough = 16;

UniqueFd spare_descriptor() noexcept {
  return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

UniqueFd listen_on(InetAddress const& address) {
  int const kind = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  UniqueFd socket(check_call(::socket(address.family(), kind, 0), "socket"));
  int const on = 1;
  int const off = 0;
  // A job that starts again must not wait for the connections of the last one to time out.
  check_call(::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
  // Whatever the machine is set up for, :: means all addresses, those of IPv4 among them.
  if (address.family() == AF_INET6)
    check_call(::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off), "IPV6_V6ONLY");
  std::string const where = fmt::format("store: listen on {}", address.text());
  check_call(::bind(socket.get(), address.get(), address.length()), where);
  check_call(::listen(socket.get(), SOMAXCONN), where);
  return socket;
}

InetAddress address_of(int socket) {
  InetAddress address;
  check_call(::getsockname(socket, address.get(), address.make_room()), "getsockname");
  return address;
}

}  // namespace

// What the thread works on; nothing here is shared but the two descriptors.
class TcpStoreServer::Loop {
 public:
  Loop(UniqueFd listener, int stop, TcpStoreServerOptions const& options)
      : listener_(std::move(listener)),
        stop_(stop),
        key_(Key::of_token(options.token)),
        handshake_timeout_(options.handshake_timeout),
        spare_(spare_descriptor()) {
    if (!spare_) throw_errno("store");
  }

  [[nodiscard]] int listener() const noexcept { return listener_.get(); }
  void run();

 private:
  bool wait();
  [[nodiscard]] int timeout_ms() const;
  void accept_all();
  UniqueFd accept_next(InetAddress& from) const;
  void accept_one(UniqueFd socket, InetAddress const& from);
  void on_shortage(int error);
  [[nodiscard]] std::size_t strangers() const;
  void serve(TcpStoreConnection& connection);
  void serve_frames(TcpStoreConnection& connection);
  static void go_on_with_handshake(TcpStoreConnection& connection);
  static void welcome(TcpStoreConnection& connection);
  void handle(TcpStoreConnection& connection, Frame const& frame);
  void handle_set(TcpStoreConnection& connection, Frame const& frame);
  void handle_get(TcpStoreConnection& connection, Frame const& frame);
  [[nodiscard]] bool is_full() const { return strangers() >= max_strangers; }
  void drop_silent_strangers();
  static void refuse(TcpStoreConnection& connection, std::string_view why);
  static void send(TcpStoreConnection& connection);

  UniqueFd listener_;
  int stop_;
  Key key_;
  std::chrono::milliseconds handshake_timeout_;
  bool accepts_ = true;
  // Closed where descriptors have run out, so that whoever connects can be accepted and learns why.
  UniqueFd spare_;
  int shortage_ = 0;  // the error of the last accept()
  std::vector<pollfd> polled_;
  // A deque, because serving one connection may answer another and references must hold.
  std::deque<TcpStoreConnection> connections_;
  std::map<std::string, StoredValue, std::less<>> values_;
};

void TcpStoreServer::Loop::run() {
  while (wait()) {
    std::size_t const known = connections_.size();
    for (std::size_t i = 0; i < known; ++i) {
      TcpStoreConnection& connection = connections_[i];
      bool const ready = polled_[i + 2].revents != 0;
      try {
        if (ready && connection.open()) serve(connection);
      } catch (std::exception const& error) {  // out of memory: one connection must not end the others
        refuse(connection, error.what());
      }
    }
    try {
      if (polled_[1].revents != 0) accept_all();
    } catch (std::exception const& error) {
      logger().warn("store: a connection was not accepted: {}", error.what());
    }
    drop_silent_strangers();
    std::erase_if(connections_, [](TcpStoreConnection const& connection) { return !connection.open(); });
  }
}

// False when it is time to stop.
bool TcpStoreServer::Loop::wait() {
  polled_.clear();
  polled_.push_back({.fd = stop_, .events = POLLIN, .revents = 0});
  polled_.push_back({.fd = accepts_ && !is_full() ? listener_.get() : -1, .events = POLLIN, .revents = 0});
  for (TcpStoreConnection const& connection : connections_) {
    short const events = connection.sending() ? POLLOUT : POLLIN;
    polled_.push_back({.fd = connection.fd(), .events = events, .revents = 0});
  }
  int const ready = ::poll(polled_.data(), polled_.size(), timeout_ms());
  accepts_ = true;
  if (ready < 0)
    for (pollfd& entry : polled_) entry.revents = 0;  // EINTR: a round in which nothing happened
  return polled_[0].revents == 0;
}

int TcpStoreServer::Loop::timeout_ms() const {
  constexpr int retry_accept_ms = 100;
  int timeout = accepts_ ? -1 : retry_accept_ms;
  bool const full = is_full();
  for (TcpStoreConnection const& connection : connections_) {
    if (connection.admitted()) continue;
    StrangerDeadlines const& deadlines = connection.deadlines();
    Deadline const& next = full && !deadlines.room.expired() ? deadlines.room : deadlines.handshake;
    int const left = static_cast<int>(next.remaining().count()) + 1;
    timeout = timeout < 0 ? left : std::min(timeout, left);
  }
  return timeout;
}

void TcpStoreServer::Loop::accept_all() {
  // First of all: whoever has just been refused gave a descriptor back, and the next newcomer would take it.
  if (!spare_) spare_ = spare_descriptor();
  while (!is_full()) {
    InetAddress from;
    UniqueFd socket = accept_next(from);
    if (socket) {
      shortage_ = 0;
      accept_one(std::move(socket), from);
      continue;
    }
    if (errno == ECONNABORTED || errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) on_shortage(errno);
    return;
  }
}

UniqueFd TcpStoreServer::Loop::accept_next(InetAddress& from) const {
  return UniqueFd(::accept4(listener_.get(), from.get(), from.make_room(), SOCK_CLOEXEC | SOCK_NONBLOCK));
}

std::size_t TcpStoreServer::Loop::strangers() const {
  return static_cast<std::size_t>(std::ranges::count_if(
      connections_, [](TcpStoreConnection const& each) { return each.open() && !each.admitted(); }));
}

void TcpStoreServer::Loop::accept_one(UniqueFd socket, InetAddress const& from) {
  int const on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  StrangerDeadlines const deadlines{.handshake = Deadline(handshake_timeout_), .room = Deadline(patience)};
  connections_.emplace_back(std::move(socket), from.text(),
                            Handshake::accept(key_, {.purpose = HandshakePurpose::store, .self = {}, .peer = {}}),
                            deadlines);
}

// The connection that was not accepted stays in the queue, so it is asked for again later, not at once. Strangers
// give their descriptors back in a while. Where there are none, no waiting helps: the members keep theirs until all
// have come. So the newcomer takes the spare one, and learns why it is refused once it has shown the token.
void TcpStoreServer::Loop::on_shortage(int error) {
  std::string why = text_of_errno(error);
  if (shortage_ != error) logger().warn("store: accept: {}", why);
  shortage_ = error;
  accepts_ = false;
  if ((error != EMFILE && error != ENFILE) || strangers() > 0) return;
  spare_.reset();
  InetAddress from;
  UniqueFd socket = accept_next(from);
  if (!socket) return;
  accept_one(std::move(socket), from);
  connections_.back().refusal = std::move(why);
}

// An error or a hang-up shows in send and receive too.
void TcpStoreServer::Loop::serve(TcpStoreConnection& connection) {
  if (connection.sending()) {
    send(connection);
  } else if (bool const member = connection.admitted(); !connection.receive()) {
    if (member)
      logger().debug("store: {} has left", connection.name());
    else
      logger().warn("store: {} left without showing the token", connection.name());
    connection.close();
  } else if (!member) {
    go_on_with_handshake(connection);
  }
  serve_frames(connection);
}

void TcpStoreServer::Loop::go_on_with_handshake(TcpStoreConnection& connection) {
  if (connection.admitted()) return welcome(connection);
  send(connection);  // a challenge, or why there is none
  Handshake const& handshake = connection.handshake();
  if (connection.open() && handshake.state() == HandshakeState::failed)
    refuse(connection, text_of(handshake.problem()));
}

// With the proof that this is the store.
void TcpStoreServer::Loop::welcome(TcpStoreConnection& connection) {
  if (connection.refusal.empty())
    connection.answer(FrameOp::ok, 0);
  else
    connection.answer_text(FrameOp::unable, 0, connection.refusal);
  send(connection);
  if (!connection.refusal.empty()) connection.close();  // the log has the cause already, once
}

void TcpStoreServer::Loop::serve_frames(TcpStoreConnection& connection) {
  while (connection.open() && connection.admitted() && !connection.sending()) {
    ParsedFrame const parsed = connection.next();
    if (parsed.status == FrameStatus::incomplete) return;
    if (parsed.status == FrameStatus::malformed) return refuse(connection, parsed.problem);
    handle(connection, parsed.frame);
    connection.consume(parsed);
  }
}

void TcpStoreServer::Loop::handle(TcpStoreConnection& connection, Frame const& frame) {
  connection.waiting.reset();
  switch (frame.op) {
    case FrameOp::set: return handle_set(connection, frame);
    case FrameOp::get: return handle_get(connection, frame);
    default: return refuse(connection, "unexpected operation");
  }
}

void TcpStoreServer::Loop::handle_set(TcpStoreConnection& connection, Frame const& frame) {
  auto const value = std::make_shared<std::vector<std::byte> const>(frame.value.begin(), frame.value.end());
  auto const [entry, inserted] = values_.try_emplace(std::string(frame.key), value);
  if (!inserted) {
    connection.answer_text(FrameOp::error, frame.request, "is set already");
    return send(connection);
  }
  connection.answer(FrameOp::ok, frame.request);
  send(connection);
  for (TcpStoreConnection& other : connections_) {
    if (!other.open() || !other.waiting || other.waiting->key != entry->first) continue;
    other.answer(FrameOp::value, other.waiting->request, value);
    other.waiting.reset();
    send(other);
  }
}

void TcpStoreServer::Loop::handle_get(TcpStoreConnection& connection, Frame const& frame) {
  if (auto const found = values_.find(frame.key); found != values_.end()) {
    connection.answer(FrameOp::value, frame.request, found->second);
    return send(connection);
  }
  connection.waiting = WaitingGet{std::string(frame.key), frame.request};
}

void TcpStoreServer::Loop::send(TcpStoreConnection& connection) {
  if (connection.flush()) return;
  logger().debug("store: {} has left before its answer", connection.name());
  connection.close();
}

void TcpStoreServer::Loop::drop_silent_strangers() {
  bool const full = is_full();
  for (TcpStoreConnection& connection : connections_) {
    if (!connection.open() || connection.admitted()) continue;
    StrangerDeadlines const& deadlines = connection.deadlines();
    if (deadlines.handshake.expired())
      refuse(connection, "no handshake in time");
    else if (full && deadlines.room.expired())
      refuse(connection, "no handshake yet, and others wait");
  }
}

void TcpStoreServer::Loop::refuse(TcpStoreConnection& connection, std::string_view why) {
  logger().warn("store: refused {}: {}", connection.name(), why);
  connection.close();
}

TcpStoreServer::TcpStoreServer(TcpStoreServerOptions const& options) {
  InetAddress const address = address_to_listen_on(options.listen, options.port, options.listen_name);
  require(!options.token.empty() || address.is_loopback(),
          "store token: expected one, because the store listens on {}; seen none", options.listen);
  // logger() throws on a bad SWITCHYARD_LOG, which the thread could not.
  Logger const& log = logger();
  if (!address.is_loopback() && options.token.size() < long_enough)
    log.warn("store: the token has {} bytes: expected {} or more, since others can try what fits a handshake",
             options.token.size(), long_enough);
  loop_ = std::make_unique<Loop>(listen_on(address), stop_.fd(), options);
  address_ = address_of(loop_->listener());
  thread_ = std::thread([loop = loop_.get()] { loop->run(); });
}

HostPort TcpStoreServer::address() const {
  // 0.0.0.0 is where to listen, not where to connect to.
  if (address_.is_any()) return {address_.family() == AF_INET6 ? "::1" : "127.0.0.1", address_.port()};
  return address_.host_port();
}

TcpStoreServer::~TcpStoreServer() {
  stop_.signal();
  thread_.join();
}

}  // namespace switchyard
