#include "bootstrap/tcp_store/client.hpp"

#include <netinet/tcp.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/check.hpp"

namespace switchyard {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds longest_attempt{16000};
constexpr milliseconds least_attempt{100};
constexpr milliseconds first_pause{10};
constexpr milliseconds longest_pause{250};

ErrorFacts rendezvous_facts() {
  return {.rank = -1, .peer = 0, .phase = "rendezvous"};
}

std::string_view as_text(std::vector<std::byte> const& bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

// While nobody listens on a port out of the range for outgoing connections, a socket that keeps trying can get
// that very port as its own and be connected to itself; it would keep the server from listening, too.
bool is_connected_to_itself(int socket, InetAddress const& address) {
  InetAddress own;
  check_call(::getsockname(socket, own.get(), own.make_room()), "getsockname");
  return own.port() == address.port() && own.same_host(address);
}

// Connects `socket`. Returns 0 or the number of the error.
int connect_to(InetAddress const& address, Deadline const& deadline, UniqueFd& socket) {
  socket = UniqueFd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return errno;
  if (::connect(socket.get(), address.get(), address.length()) < 0) {
    if (errno != EINPROGRESS) return errno;
    if (!wait_for(socket.get(), POLLOUT, deadline)) return ETIMEDOUT;
    int error = 0;
    socklen_t length = sizeof error;
    check_call(::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length), "SO_ERROR");
    if (error != 0) return error;
  }
  if (is_connected_to_itself(socket.get(), address)) return ECONNREFUSED;
  int const on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return 0;
}

// Whether this process or this host is at fault, which no waiting for the server heals.
bool is_hopeless(int error) noexcept {
  constexpr std::array errors{EMFILE, ENFILE, ENETUNREACH, ENETDOWN, EACCES, EPERM, EAFNOSUPPORT, EPROTONOSUPPORT};
  return std::ranges::find(errors, error) != errors.end();
}

std::string why_not_connected(int error, InetAddress const& address) {
  std::string text = fmt::format("connect to {}: {}", address.text(), text_of_errno(error));
  if (error != ENETUNREACH && error != ENETDOWN) return text;
  return text + (address.is_loopback() ? " (is the loopback interface down? ip link set lo up)"
                                       : " (this host has no route there; see ip route)");
}

}  // namespace

TcpStoreClient::TcpStoreClient(HostPort const& server, std::string_view token, milliseconds timeout,
                               StoreCaller const& caller)
    : server_(server), timeout_(timeout), caller_(caller), key_(Key::of_token(token)) {
  Deadline const deadline(timeout);
  milliseconds pause = first_pause;
  while (!try_all(deadline)) {
    std::this_thread::sleep_for(std::min(pause, deadline.remaining()));
    pause = std::min(2 * pause, longest_pause);
    attempt_timeout_ = std::min(2 * attempt_timeout_, longest_attempt);
  }
}

bool TcpStoreClient::try_all(Deadline const& deadline) {
  std::string why = "the name does not resolve";
  std::string refusal;
  auto const addresses = candidate_addresses(server_, caller_.reach);
  if (addresses.empty() && caller_.reach != Reach::anywhere && !resolve(server_).empty())
    throw InvalidArgument(caller_.out_of_reach);
  std::size_t hopeless = 0;
  for (InetAddress const& address : addresses) {
    Attempt const attempt = try_connect(address, deadline, why);
    if (attempt == Attempt::connected) return true;
    if (attempt == Attempt::hopeless) ++hopeless;
    if (attempt == Attempt::refused) refusal = why;
  }
  // Only now: another of the addresses might have been the right one.
  if (!refusal.empty()) throw InvalidArgument(fmt::format("store at {}: {}", server_.text(), refusal));
  if (hopeless > 0 && hopeless == addresses.size())
    throw SystemError(fmt::format("store at {}: {}", server_.text(), why), rendezvous_facts());
  if (deadline.expired())
    throw Timeout(fmt::format("store at {}: no connection within {} ms: {} (is rank 0 running, and does it listen "
                              "there? see SWITCHYARD_LISTEN)",
                              server_.text(), timeout_.count(), why),
                  rendezvous_facts());
  return false;
}

auto TcpStoreClient::try_connect(InetAddress const& address, Deadline const& deadline, std::string& why)
    -> Attempt {
  // Each address gets a try, however late it is.
  Deadline const end(std::clamp(deadline.remaining(), std::min(timeout_, least_attempt), attempt_timeout_));
  if (int const error = connect_to(address, end, socket_); error != 0) {
    why = why_not_connected(error, address);
    return is_hopeless(error) ? Attempt::hopeless : Attempt::too_early;
  }
  try {
    return shake_hands(end, why);
  } catch (PeerLost const& error) {  // closed on us: too many at once, or a server that is just leaving
    why = error.what();
  }
  return Attempt::too_early;
}

auto TcpStoreClient::shake_hands(Deadline const& deadline, std::string& why) -> Attempt {
  Party const self{.rank = caller_.rank, .endpoint = 0};
  Handshake handshake = Handshake::connect(key_, {.purpose = HandshakePurpose::store, .self = self, .peer = {}});
  send_bytes(handshake.take_output(), deadline);
  while (handshake.state() == HandshakeState::ongoing) {
    // What follows the handshake comes with its end: so no more is read than is due.
    ByteView const bytes = receive_bytes(handshake.due(), deadline);
    why = "no answer";
    if (bytes.empty()) return Attempt::too_early;
    handshake.feed(bytes);
    send_bytes(handshake.take_output(), deadline);
  }
  if (handshake.state() == HandshakeState::failed) return on_failure(handshake, why);
  sealer_.emplace(handshake.tags_to_send());
  opener_.emplace(handshake.tags_to_expect());
  await_welcome(deadline);
  return Attempt::connected;
}

auto TcpStoreClient::on_failure(Handshake const& handshake, std::string& why) const -> Attempt {
  HandshakeProblem const problem = handshake.problem();
  why = handshake.refused_by_peer() ? fmt::format("refused this rank: {}", text_of(problem))
                                    : fmt::format("what answers there: {}", text_of(problem));
  if (problem == HandshakeProblem::malformed) return Attempt::too_early;
  if (problem == HandshakeProblem::wrong_token) why += " (is SWITCHYARD_TOKEN the same on all ranks?)";
  return Attempt::refused;
}

void TcpStoreClient::await_welcome(Deadline const& deadline) {
  auto const answer = receive(0, deadline);
  if (!answer) fail("no answer after the handshake");
  if (answer->op == FrameOp::ok) return;
  throw SystemError(fmt::format("store at {}: cannot serve this rank: {}", server_.text(), as_text(answer->value)),
                    rendezvous_facts());
}

void TcpStoreClient::set(std::string_view key, std::span<std::byte const> value) {
  std::lock_guard const lock(mutex_);
  Deadline const deadline(timeout_);
  asked_.reset();
  std::uint32_t const request = send(FrameOp::set, key, value, deadline);
  auto const answer = receive(request, deadline);
  if (!answer) throw Timeout(fmt::format("store at {}: no answer to set of '{}'", server_.text(), key));
  require(answer->op == FrameOp::ok, "store key '{}': {}", key, as_text(answer->value));
}

std::vector<std::byte> TcpStoreClient::get(std::string_view key, Deadline const& deadline) {
  std::lock_guard const lock(mutex_);
  if (asked_ != key) {
    asked_.reset();
    send(FrameOp::get, key, {}, Deadline(timeout_));
    asked_ = key;
  }
  auto answer = receive(request_, deadline);
  if (!answer) throw Timeout(fmt::format("store key '{}' was not set in time", key));
  asked_.reset();
  require(answer->op == FrameOp::value, "store key '{}': {}", key, as_text(answer->value));
  return std::move(answer->value);
}

std::uint32_t TcpStoreClient::send(FrameOp op, std::string_view key, std::span<std::byte const> value,
                                   Deadline const& deadline) {
  if (!socket_) fail("the connection is closed");
  std::uint32_t const request = request_ + 1;
  auto const frame = sealer_->seal_whole({.op = op, .request = request, .key = key, .value = value});
  request_ = request;
  send_bytes(frame, deadline);
  return request;
}

void TcpStoreClient::send_bytes(ByteView bytes, Deadline const& deadline) {
  while (!bytes.empty()) {
    ssize_t const step = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (step >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(step));
    } else if (errno != EAGAIN && errno != EINTR) {
      fail("the server has left");
    } else if (!wait_for(socket_.get(), POLLOUT, deadline)) {
      fail("the server does not read");  // half a frame is out: this connection is of no more use
    }
  }
}

auto TcpStoreClient::receive(std::uint32_t request, Deadline const& deadline) -> std::optional<Answer> {
  if (!socket_) fail("the connection is closed");
  for (;;) {
    if (auto answer = take_answer(request)) return answer;
    ByteView const bytes = receive_bytes(chunk_.size(), deadline);
    if (bytes.empty()) return std::nullopt;
    opener_->append(bytes);
  }
}

ByteView TcpStoreClient::receive_bytes(std::size_t most, Deadline const& deadline) {
  while (wait_for(socket_.get(), POLLIN, deadline)) {
    ssize_t const got = ::recv(socket_.get(), chunk_.data(), std::min(most, chunk_.size()), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) fail("the server has left");
    if (got > 0) return std::span(chunk_).first(static_cast<std::size_t>(got));
  }
  return {};
}

auto TcpStoreClient::take_answer(std::uint32_t request) -> std::optional<Answer> {
  for (;;) {
    ParsedFrame const parsed = opener_->next();
    if (parsed.status == FrameStatus::incomplete) return std::nullopt;
    if (parsed.status == FrameStatus::malformed) fail(parsed.problem);
    // Answers to requests that were given up are dropped.
    std::optional<Answer> answer;
    if (parsed.frame.request == request)
      answer = Answer{parsed.frame.op, {parsed.frame.value.begin(), parsed.frame.value.end()}};
    opener_->consume(parsed);
    if (answer) return answer;
  }
}

void TcpStoreClient::fail(std::string_view what) {
  socket_.reset();
  throw PeerLost(fmt::format("store at {}: {}", server_.text(), what), {.rank = -1, .peer = 0, .phase = "store"});
}

std::string TcpStoreClient::own_address() const {
  InetAddress own;
  check_call(::getsockname(socket_.get(), own.get(), own.make_room()), "getsockname");
  return own.host_port().host;
}

}  // namespace switchyard
