#include "bootstrap/tcp_store/client.hpp"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/check.hpp"

namespace switchyard {

namespace {

using std::chrono::milliseconds;

// A server that accepts and then says nothing is not the one we look for.
constexpr milliseconds attempt_timeout{2000};
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
bool is_connected_to_itself(int socket, sockaddr_in const& address) {
  sockaddr_in own{};
  socklen_t length = sizeof own;
  check_call(::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &length), "getsockname");
  return own.sin_port == address.sin_port && own.sin_addr.s_addr == address.sin_addr.s_addr;
}

// Connects `socket`. Returns 0 or the number of the error.
int connect_to(sockaddr_in const& address, Deadline const& deadline, UniqueFd& socket) {
  socket = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return errno;
  if (::connect(socket.get(), reinterpret_cast<sockaddr const*>(&address), sizeof address) < 0) {
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

std::string why_not_connected(int error, sockaddr_in const& address) {
  std::string text = fmt::format("connect to {}: {}", text_of(address), text_of_errno(error));
  if (error != ENETUNREACH && error != ENETDOWN) return text;
  bool const loopback = ntohl(address.sin_addr.s_addr) >> 24U == IN_LOOPBACKNET;
  return text + (loopback ? " (is the loopback interface down? ip link set lo up)"
                          : " (this host has no route there; see ip route)");
}

}  // namespace

TcpStoreClient::TcpStoreClient(HostPort const& server, std::string_view token, milliseconds timeout)
    : server_(server), timeout_(timeout) {
  require(token.size() <= hello_limits.value_bytes, "store token: expected at most {} bytes, seen {}",
          hello_limits.value_bytes, token.size());
  Deadline const deadline(timeout);
  milliseconds pause = first_pause;
  while (!try_all(token, deadline)) {
    std::this_thread::sleep_for(std::min(pause, deadline.remaining()));
    pause = std::min(2 * pause, longest_pause);
  }
}

bool TcpStoreClient::try_all(std::string_view token, Deadline const& deadline) {
  std::string why = "the name does not resolve";
  auto const addresses = candidate_addresses(server_);
  std::size_t hopeless = 0;
  for (sockaddr_in const& address : addresses) {
    Attempt const attempt = try_connect(address, token, why);
    if (attempt == Attempt::connected) return true;
    if (attempt == Attempt::hopeless) ++hopeless;
  }
  if (hopeless > 0 && hopeless == addresses.size())
    throw SystemError(fmt::format("store at {}: {}", server_.text(), why), rendezvous_facts());
  if (deadline.expired())
    throw Timeout(fmt::format("store at {}: no connection within {} ms: {} (is rank 0 running, and does it listen "
                              "there? see SWITCHYARD_LISTEN)",
                              server_.text(), timeout_.count(), why),
                  rendezvous_facts());
  return false;
}

auto TcpStoreClient::try_connect(sockaddr_in const& address, std::string_view token, std::string& why) -> Attempt {
  Deadline const deadline(std::min(attempt_timeout, std::max(timeout_, milliseconds{1})));
  incoming_.clear();
  if (int const error = connect_to(address, deadline, socket_); error != 0) {
    why = why_not_connected(error, address);
    return is_hopeless(error) ? Attempt::hopeless : Attempt::too_early;
  }
  try {
    auto const answer = receive(send(FrameOp::hello, {}, std::as_bytes(std::span(token)), deadline), deadline);
    why = "no answer";
    if (!answer) return Attempt::too_early;
    if (answer->op == FrameOp::ok) return Attempt::connected;
    auto const text = [&](char const* what) {
      return fmt::format("store at {}: {} this rank: {}", server_.text(), what, as_text(answer->value));
    };
    if (answer->op == FrameOp::unable) throw SystemError(text("cannot serve"), rendezvous_facts());
    throw InvalidArgument(text("refused"));
  } catch (PeerLost const& error) {  // closed on us: too many at once, or a server that is just leaving
    why = error.what();
  }
  return Attempt::too_early;
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
  std::uint32_t const request = request_ + 1;
  std::vector<std::byte> const frame = encode_frame({.op = op, .request = request, .key = key, .value = value});
  if (!socket_) fail("the connection is closed");
  request_ = request;
  for (std::size_t sent = 0; sent < frame.size();) {
    ssize_t const step = ::send(socket_.get(), frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (step >= 0) {
      sent += static_cast<std::size_t>(step);
    } else if (errno != EAGAIN && errno != EINTR) {
      fail("the server has left");
    } else if (!wait_for(socket_.get(), POLLOUT, deadline)) {
      fail("the server does not read");  // half a frame is out: this connection is of no more use
    }
  }
  return request;
}

auto TcpStoreClient::receive(std::uint32_t request, Deadline const& deadline) -> std::optional<Answer> {
  if (!socket_) fail("the connection is closed");
  std::array<std::byte, 65536> chunk;
  for (;;) {
    if (auto answer = take_answer(request)) return answer;
    if (!wait_for(socket_.get(), POLLIN, deadline)) return std::nullopt;
    ssize_t const got = ::recv(socket_.get(), chunk.data(), chunk.size(), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) fail("the server has left");
    if (got > 0) incoming_.insert(incoming_.end(), chunk.begin(), chunk.begin() + got);
  }
}

auto TcpStoreClient::take_answer(std::uint32_t request) -> std::optional<Answer> {
  for (;;) {
    ParsedFrame const parsed = parse_frame(incoming_);
    if (parsed.status == FrameStatus::incomplete) return std::nullopt;
    if (parsed.status == FrameStatus::malformed) fail(parsed.problem);
    // Answers to requests that were given up are dropped.
    std::optional<Answer> answer;
    if (parsed.frame.request == request)
      answer = Answer{parsed.frame.op, {parsed.frame.value.begin(), parsed.frame.value.end()}};
    incoming_.erase(incoming_.begin(), incoming_.begin() + static_cast<long>(parsed.bytes));
    if (answer) return answer;
  }
}

void TcpStoreClient::fail(std::string_view what) {
  socket_.reset();
  throw PeerLost(fmt::format("store at {}: {}", server_.text(), what), {.rank = -1, .peer = 0, .phase = "store"});
}

}  // namespace switchyard
