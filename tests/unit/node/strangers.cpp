// Whoever connects to the store without knowing the protocol or the token harms nobody.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <vector>

#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/frame.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "support/meeting.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::bytes_of;
using test::plenty;

class Strangers : public testing::Test {
 protected:
  [[nodiscard]] UniqueFd dial() const {
    UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in const address = ipv4_address("127.0.0.1", server_.port());
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr const*>(&address), sizeof address), 0);
    return socket;
  }

  static void send(UniqueFd const& socket, std::span<std::byte const> bytes) {
    // The server may have closed already; that is what the tests look at.
    [[maybe_unused]] auto const sent = ::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }

  // Reads until the server closes; false when it does not.
  static bool is_closed(UniqueFd const& socket) {
    std::array<std::byte, 4096> chunk;
    Deadline const deadline(plenty);
    while (wait_for(socket.get(), POLLIN, deadline))
      if (::recv(socket.get(), chunk.data(), chunk.size(), 0) <= 0) return true;
    return false;
  }

  void expect_served() {
    TcpStoreClient client({"127.0.0.1", server_.port()}, "the token", plenty);
    std::string const key = "key" + std::to_string(++keys_);
    client.set(key, bytes_of("value"));
    EXPECT_EQ(client.get(key, Deadline(plenty)).size(), 5U);
  }

  int keys_ = 0;
  TcpStoreServer server_{
      {.listen = "127.0.0.1", .port = 0, .token = "the token", .hello_timeout = milliseconds{300}}};
};

TEST_F(Strangers, WrongTokenIsRefusedWithAReason) {
  for (char const* token : {"", "the tokex", "the toke", "the token "}) {
    try {
      TcpStoreClient({"127.0.0.1", server_.port()}, token, plenty);
      ADD_FAILURE() << token;
    } catch (InvalidArgument const& error) {
      EXPECT_NE(std::string(error.what()).find("wrong token"), std::string::npos) << error.what();
    }
  }
  expect_served();
}

TEST_F(Strangers, GarbageIsClosed) {
  UniqueFd const socket = dial();
  send(socket, bytes_of("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  EXPECT_TRUE(is_closed(socket));
  expect_served();
}

TEST_F(Strangers, SetWithoutHelloIsClosed) {
  UniqueFd const socket = dial();
  send(socket, encode_frame({.op = FrameOp::set, .request = 1, .key = {}, .value = bytes_of("the token")}));
  EXPECT_TRUE(is_closed(socket));
  expect_served();
}

TEST_F(Strangers, HalfOpenConnectionIsClosedInTime) {
  UniqueFd const silent = dial();
  UniqueFd const slow = dial();
  send(slow, bytes_of("SWYS"));
  expect_served();
  EXPECT_TRUE(is_closed(silent));
  EXPECT_TRUE(is_closed(slow));
  expect_served();
}

TEST_F(Strangers, OversizeHelloIsClosedAtTheHeader) {
  std::vector<std::byte> const large(hello_limits.value_bytes + 1);
  UniqueFd const socket = dial();
  send(socket, encode_frame_head({.op = FrameOp::hello, .request = 1, .key = {}, .value = large}));
  EXPECT_TRUE(is_closed(socket));
  expect_served();
}

TEST_F(Strangers, OversizeAndMalformedFramesOfAMemberAreClosed) {
  auto const hello = encode_frame({.op = FrameOp::hello, .request = 1, .key = {}, .value = bytes_of("the token")});
  FrameHeader const oversize{.magic = frame_magic,
                             .version = frame_version,
                             .op = static_cast<std::uint16_t>(FrameOp::set),
                             .request = 2,
                             .key_length = 1,
                             .value_length = static_cast<std::uint32_t>(max_value_bytes) + 1};
  for (auto const bytes : {std::as_bytes(std::span(&oversize, 1)), bytes_of("twenty bytes of noise, or more")}) {
    UniqueFd const socket = dial();
    send(socket, hello);
    send(socket, bytes);
    EXPECT_TRUE(is_closed(socket));
  }
  UniqueFd const again = dial();
  send(again, hello);
  send(again, hello);  // a second hello is no request
  EXPECT_TRUE(is_closed(again));
  expect_served();
}

TEST_F(Strangers, ACrowdOfSilentOnesDoesNotKeepMembersOut) {
  std::vector<UniqueFd> crowd;
  for (int i = 0; i < 300; ++i) crowd.push_back(dial());
  expect_served();
}

TEST_F(Strangers, AMemberThatDoesNotReadHoldsUpNobody) {
  std::vector<std::byte> const value(max_value_bytes);
  TcpStoreClient writer({"127.0.0.1", server_.port()}, "the token", plenty);
  writer.set("large", value);
  UniqueFd const lazy = dial();
  send(lazy, encode_frame({.op = FrameOp::hello, .request = 1, .key = {}, .value = bytes_of("the token")}));
  auto const get = encode_frame({.op = FrameOp::get, .request = 2, .key = "large", .value = {}});
  for (int i = 0; i < 100; ++i) send(lazy, get);
  expect_served();
  EXPECT_EQ(writer.get("large", Deadline(plenty)), value);
}

TEST_F(Strangers, FramesThatArriveByteByByte) {
  UniqueFd const socket = dial();
  auto const hello = encode_frame({.op = FrameOp::hello, .request = 9, .key = {}, .value = bytes_of("the token")});
  for (std::byte const& byte : hello) send(socket, {&byte, 1});
  std::array<std::byte, sizeof(FrameHeader)> answer{};
  ASSERT_EQ(::recv(socket.get(), answer.data(), answer.size(), MSG_WAITALL), static_cast<ssize_t>(answer.size()));
  EXPECT_EQ(parse_frame(answer).frame.op, FrameOp::ok);
  EXPECT_EQ(parse_frame(answer).frame.request, 9U);
}

}  // namespace
}  // namespace switchyard
