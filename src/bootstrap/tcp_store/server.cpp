#include "bootstrap/tcp_store/server.hpp"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>
#include <map>

#include "base/check.hpp"
#include "base/log.hpp"
#include "bootstrap/tcp_store/connection.hpp"

namespace switchyard {

namespace {

// More than there are ranks, so that all may arrive at once, and few enough to cost nothing.
constexpr std::size_t max_strangers = 128;

// Takes as long for a wrong first byte as for a wrong last one, so that timing does not give the token away.
bool same_token(std::span<std::byte const> seen, std::string_view expected) noexcept {
  unsigned difference = seen.size() == expected.size() ? 0U : 1U;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    auto const byte = expected.empty() ? 0U : static_cast<unsigned char>(expected[i % expected.size()]);
    difference |= std::to_integer<unsigned>(seen[i]) ^ byte;
  }
  return difference == 0;
}

UniqueFd spare_descriptor() noexcept {
  return UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

UniqueFd listen_on(TcpStoreServerOptions const& options) {
  sockaddr_in const address = ipv4_address(options.listen, options.port);
  UniqueFd socket(check_call(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
  int const on = 1;
  // A job that starts again must not wait for the connections of the last one to time out.
  check_call(::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
  auto const* const plain = reinterpret_cast<sockaddr const*>(&address);
  std::string const where = fmt::format("store: listen on {}", text_of(address));
  check_call(::bind(socket.get(), plain, sizeof address), where);
  check_call(::listen(socket.get(), SOMAXCONN), where);
  return socket;
}

std::uint16_t port_of(int socket) {
  sockaddr_in address{};
  socklen_t length = sizeof address;
  check_call(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length), "getsockname");
  return ntohs(address.sin_port);
}

}  // namespace

// What the thread works on; nothing here is shared but the two descriptors.
class TcpStoreServer::Loop {
 public:
  Loop(UniqueFd listener, int stop, TcpStoreServerOptions const& options)
      : listener_(std::move(listener)), stop_(stop), options_(options), spare_(spare_descriptor()) {
    if (!spare_) throw_errno("store");
  }

  [[nodiscard]] int listener() const noexcept { return listener_.get(); }
  void run();

 private:
  bool wait();
  [[nodiscard]] int timeout_ms() const;
  void accept_all();
  UniqueFd accept_next(sockaddr_in& from) const;
  void accept_one(UniqueFd socket, sockaddr_in const& from);
  void on_shortage(int error);
  [[nodiscard]] std::size_t strangers() const;
  void serve(TcpStoreConnection& connection);
  void serve_frames(TcpStoreConnection& connection);
  void handle(TcpStoreConnection& connection, Frame const& frame);
  void handle_hello(TcpStoreConnection& connection, Frame const& frame);
  void handle_set(TcpStoreConnection& connection, Frame const& frame);
  void handle_get(TcpStoreConnection& connection, Frame const& frame);
  void drop_silent_strangers();
  static void refuse(TcpStoreConnection& connection, std::string_view why);
  static void send(TcpStoreConnection& connection);

  UniqueFd listener_;
  int stop_;
  TcpStoreServerOptions options_;
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
  if (!spare_) spare_ = spare_descriptor();
  polled_.clear();
  polled_.push_back({.fd = stop_, .events = POLLIN, .revents = 0});
  polled_.push_back({.fd = accepts_ ? listener_.get() : -1, .events = POLLIN, .revents = 0});
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
  for (TcpStoreConnection const& connection : connections_) {
    if (connection.admitted()) continue;
    int const left = static_cast<int>(connection.hello_deadline().remaining().count()) + 1;
    timeout = timeout < 0 ? left : std::min(timeout, left);
  }
  return timeout;
}

void TcpStoreServer::Loop::accept_all() {
  for (;;) {
    sockaddr_in from{};
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

UniqueFd TcpStoreServer::Loop::accept_next(sockaddr_in& from) const {
  socklen_t length = sizeof from;
  return UniqueFd(
      ::accept4(listener_.get(), reinterpret_cast<sockaddr*>(&from), &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

std::size_t TcpStoreServer::Loop::strangers() const {
  return static_cast<std::size_t>(std::ranges::count_if(
      connections_, [](TcpStoreConnection const& each) { return each.open() && !each.admitted(); }));
}

void TcpStoreServer::Loop::accept_one(UniqueFd socket, sockaddr_in const& from) {
  if (strangers() >= max_strangers) {
    logger().warn("store: refused {}: too many connections that have not shown the token", text_of(from));
    return;
  }
  int const on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  connections_.emplace_back(std::move(socket), text_of(from), Deadline(options_.hello_timeout));
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
  sockaddr_in from{};
  UniqueFd socket = accept_next(from);
  if (!socket) return;
  accept_one(std::move(socket), from);
  connections_.back().refusal = std::move(why);
}

// An error or a hang-up shows in send and receive too.
void TcpStoreServer::Loop::serve(TcpStoreConnection& connection) {
  if (connection.sending()) {
    send(connection);
  } else if (!connection.receive()) {
    if (connection.admitted())
      logger().debug("store: {} has left", connection.name());
    else
      logger().warn("store: {} left without showing the token", connection.name());
    connection.close();
  }
  serve_frames(connection);
}

void TcpStoreServer::Loop::serve_frames(TcpStoreConnection& connection) {
  while (connection.open() && !connection.sending()) {
    ParsedFrame const parsed = connection.next();
    if (parsed.status == FrameStatus::incomplete) return;
    if (parsed.status == FrameStatus::malformed) return refuse(connection, parsed.problem);
    handle(connection, parsed.frame);
    connection.consume(parsed.bytes);
  }
}

void TcpStoreServer::Loop::handle(TcpStoreConnection& connection, Frame const& frame) {
  if (!connection.admitted()) return handle_hello(connection, frame);
  connection.waiting.reset();
  switch (frame.op) {
    case FrameOp::set: return handle_set(connection, frame);
    case FrameOp::get: return handle_get(connection, frame);
    default: return refuse(connection, "unexpected operation");
  }
}

void TcpStoreServer::Loop::handle_hello(TcpStoreConnection& connection, Frame const& frame) {
  if (frame.op != FrameOp::hello) return refuse(connection, "no hello");
  if (!same_token(frame.value, options_.token)) {
    connection.answer_text(FrameOp::error, frame.request, "wrong token");
    send(connection);
    if (connection.open()) refuse(connection, "wrong token");
  } else if (!connection.refusal.empty()) {
    connection.answer_text(FrameOp::unable, frame.request, connection.refusal);
    send(connection);
    connection.close();  // the log has the cause already, once
  } else {
    connection.admit();
    connection.answer(FrameOp::ok, frame.request);
    send(connection);
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
  for (TcpStoreConnection& connection : connections_)
    if (connection.open() && !connection.admitted() && connection.hello_deadline().expired())
      refuse(connection, "no hello in time");
}

void TcpStoreServer::Loop::refuse(TcpStoreConnection& connection, std::string_view why) {
  logger().warn("store: refused {}: {}", connection.name(), why);
  connection.close();
}

TcpStoreServer::TcpStoreServer(TcpStoreServerOptions const& options) {
  require(options.token.size() <= hello_limits.value_bytes, "store token: expected at most {} bytes, seen {}",
          hello_limits.value_bytes, options.token.size());
  require(!options.token.empty() || options.listen.starts_with("127."),
          "store token: expected one, because the store listens on {}; seen none", options.listen);
  logger();  // throws on a bad SWITCHYARD_LOG, which the thread could not
  loop_ = std::make_unique<Loop>(listen_on(options), stop_.fd(), options);
  port_ = port_of(loop_->listener());
  thread_ = std::thread([loop = loop_.get()] { loop->run(); });
}

TcpStoreServer::~TcpStoreServer() {
  stop_.signal();
  thread_.join();
}

}  // namespace switchyard
