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

UniqueFd connect_to(sockaddr_in const& address, Deadline const& deadline) {
  UniqueFd socket(check_call(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
  if (::connect(socket.get(), reinterpret_cast<sockaddr const*>(&address), sizeof address) < 0) {
    if (errno != EINPROGRESS) throw_errno("connect");
    if (!wait_for(socket.get(), POLLOUT, deadline)) throw_errno("connect", ETIMEDOUT);
    int error = 0;
    socklen_t length = sizeof error;
    check_call(::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length), "SO_ERROR");
    if (error != 0) throw_errno("connect", error);
  }
  if (is_connected_to_itself(socket.get(), address)) throw_errno("connect", ECONNREFUSED);
  int const on = 1;
  ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return socket;
}

}  // namespace

TcpStoreClient::TcpStoreClient(HostPort const& server, std::string_view token, milliseconds timeout)
    : server_(server), timeout_(timeout) {
  require(token.size() <= hello_limits.value_bytes, "store token: expected at most {} bytes, seen {}",
          hello_limits.value_bytes, token.size());
  Deadline const deadline(timeout);
  milliseconds pause = first_pause;
  for (;;) {
    std::string why = "the name does not resolve";
    for (sockaddr_in const& address : candidate_addresses(server))
      if (try_connect(address, token, why)) return;
    if (deadline.expired())
      throw Timeout(fmt::format("store at {}: no connection within {} ms: {} (is rank 0 running, and does it "
                                "listen there? see SWITCHYARD_LISTEN)",
                                server.text(), timeout.count(), why),
                    {.rank = -1, .peer = 0, .phase = "rendezvous"});
    std::this_thread::sleep_for(std::min(pause, deadline.remaining()));
    pause = std::min(2 * pause, longest_pause);
  }
}

bool TcpStoreClient::try_connect(sockaddr_in const& address, std::string_view token, std::string& why) {
  Deadline const deadline(std::min(attempt_timeout, std::max(timeout_, milliseconds{1})));
  incoming_.clear();
  try {
    socket_ = connect_to(address, deadline);
    auto const answer = receive(send(FrameOp::hello, {}, std::as_bytes(std::span(token)), deadline), deadline);
    why = "no answer";
    if (!answer) return false;
    if (answer->op == FrameOp::ok) return true;
    throw InvalidArgument(
        fmt::format("store at {}: refused this rank: {}", server_.text(), as_text(answer->value)));
  } catch (SystemError const& error) {
    why = error.what();
  } catch (PeerLost const& error) {  // closed on us: too many at once, or a server that is just leaving
    why = error.what();
  }
  return false;
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
