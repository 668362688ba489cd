// What can be seen, and done, between a rank and the store.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bootstrap/mac.hpp"
#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "support/meeting.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::bytes_of;
using test::plenty;

// May change bytes on their way; `before` counts those of this direction that went before.
using Meddle = std::function<void(bool to_server, std::size_t before, std::span<char> bytes)>;

// Hands bytes on between one client after the other and a server, and writes them down.
class Proxy {
 public:
  explicit Proxy(HostPort server, Meddle meddle = {}) : server_(std::move(server)), meddle_(std::move(meddle)) {
    InetAddress address = resolve({"127.0.0.1", 0}).at(0);
    listener_ = UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(::bind(listener_.get(), address.get(), address.length()), 0);
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    EXPECT_EQ(::getsockname(listener_.get(), address.get(), address.make_room()), 0);
    address_ = address.host_port();
    thread_ = std::jthread([this](std::stop_token const& stop) { run(stop); });
  }

  [[nodiscard]] HostPort const& address() const { return address_; }
  // All that went over the wire, both ways.
  std::string seen() {
    std::lock_guard const lock(mutex_);
    return seen_[0] + "|" + seen_[1];
  }

 private:
  void run(std::stop_token const& stop) {
    while (!stop.stop_requested()) {
      if (!wait_for(listener_.get(), POLLIN, Deadline(milliseconds{20}))) continue;
      UniqueFd const client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      InetAddress const address = resolve(server_).at(0);
      UniqueFd const server(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (::connect(server.get(), address.get(), address.length()) != 0) return;
      relay(stop, client.get(), server.get());
    }
  }

  void relay(std::stop_token const& stop, int client, int server) {
    std::array<std::size_t, 2> count{};
    while (!stop.stop_requested()) {
      std::array<pollfd, 2> fds{pollfd{client, POLLIN, 0}, pollfd{server, POLLIN, 0}};
      if (!poll_until(fds, Deadline(milliseconds{20}))) continue;
      for (std::size_t from = 0; from < 2; ++from) {
        if (fds[from].revents == 0) continue;
        std::array<char, 65536> chunk;
        ssize_t const got = ::recv(fds[from].fd, chunk.data(), chunk.size(), 0);
        if (got <= 0) return;
        std::span<char> const bytes(chunk.data(), static_cast<std::size_t>(got));
        if (meddle_) meddle_(from == 0, count[from], bytes);
        count[from] += bytes.size();
        {
          std::lock_guard const lock(mutex_);
          seen_[from].append(bytes.data(), bytes.size());
        }
        ::send(fds[1 - from].fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      }
    }
  }

  HostPort server_;
  Meddle meddle_;
  UniqueFd listener_;
  HostPort address_;
  std::mutex mutex_;
  std::array<std::string, 2> seen_;
  std::jthread thread_;
};

class Wire : public testing::Test {
 protected:
  static constexpr std::string_view token = "correct-horse-battery-staple";
  TcpStoreServer server_{{.listen = "127.0.0.1", .port = 0, .token = std::string(token)}};
};

std::string text_of(ByteView bytes) {
  return {reinterpret_cast<char const*>(bytes.data()), bytes.size()};
}

TEST_F(Wire, TheTokenIsNeverOnIt) {
  Proxy proxy(server_.address());
  {
    TcpStoreClient client(proxy.address(), token, plenty, {.rank = 1});
    client.set("a key", bytes_of("a value"));
    EXPECT_EQ(text_of(client.get("a key", Deadline(plenty))), "a value");
    EXPECT_THROW(client.set("a key", {}), InvalidArgument);
    EXPECT_THROW(client.get("nothing", Deadline(milliseconds{10})), Timeout);
  }
  // One whose token is wrong does not show that, either.
  EXPECT_THROW(TcpStoreClient(proxy.address(), "a wrong but secret one", plenty), InvalidArgument);
  std::string const seen = proxy.seen();
  // What is recorded is what went by.
  EXPECT_THAT(seen, testing::HasSubstr("a value"));
  EXPECT_THAT(seen, testing::HasSubstr("SWHS"));
  for (std::string const& secret :
       {std::string(token), std::string("a wrong but secret one"), text_of(Key::of_token(token).bytes())}) {
    // Nor a part of it, nor backwards.
    for (std::size_t at = 0; at + 6 <= secret.size(); ++at) {
      std::string part = secret.substr(at, 6);
      EXPECT_EQ(seen.find(part), std::string::npos) << at;
      std::ranges::reverse(part);
      EXPECT_EQ(seen.find(part), std::string::npos) << at;
    }
  }
}

// Somebody on the way changes one byte after the handshake, of a request or of an answer.
TEST_F(Wire, WhatIsChangedOnItIsRefused) {
  constexpr std::size_t to_server = sizeof(HandshakeHello) + sizeof(HandshakeProof);
  constexpr std::size_t to_client = sizeof(HandshakeChallenge) + sizeof(HandshakeProof);
  for (auto const& [direction, at] : {std::pair(true, to_server), std::pair(true, to_server + sizeof(FrameHeader)),
                                      std::pair(true, to_server + 30), std::pair(false, to_client),
                                      std::pair(false, to_client + sizeof(FrameHeader))}) {
    Proxy proxy(server_.address(),
                [direction = direction, at = at](bool to, std::size_t before, std::span<char> bytes) {
                  if (to == direction && at >= before && at < before + bytes.size()) bytes[at - before] ^= 1;
                });
    try {
      TcpStoreClient client(proxy.address(), token, milliseconds{300});
      client.set("changed", bytes_of("a value"));
      ADD_FAILURE() << direction << ' ' << at;
    } catch (PeerLost const&) {
    } catch (Timeout const&) {  // while it connects: it tries again, in vain
    }
  }
  TcpStoreClient client(server_.address(), token, plenty);
  EXPECT_THROW(client.get("changed", Deadline(milliseconds{20})), Timeout);
}

}  // namespace
}  // namespace switchyard
