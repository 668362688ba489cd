// Whoever connects to the store without knowing the protocol or the token harms nobody.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bootstrap/tcp_store/client.hpp"
#include "bootstrap/tcp_store/server.hpp"
#include "support/meeting.hpp"
#include "support/store_member.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using test::bytes_of;
using test::plenty;
using test::StoreMember;

class Strangers : public testing::Test {
 protected:
  [[nodiscard]] StoreMember dial() const { return StoreMember(server_.address()); }

  // A message of the handshake that says no more than its header.
  static std::vector<std::byte> header(HandshakeKind kind, std::uint16_t version = handshake_version) {
    HandshakeHeader const header{.magic = handshake_magic, .version = version, .kind = kind};
    auto const bytes = std::as_bytes(std::span(&header, 1));
    return {bytes.begin(), bytes.end()};
  }

  static std::vector<std::byte> hello() {
    return Handshake::connect(Key::of_token("the token"),
                              {.purpose = HandshakePurpose::store, .self = {}, .peer = {}})
        .take_output();
  }

  void expect_served() {
    TcpStoreClient client(server_.address(), "the token", plenty);
    std::string const key = "key" + std::to_string(++keys_);
    client.set(key, bytes_of("value"));
    EXPECT_EQ(client.get(key, Deadline(plenty)).size(), 5U);
  }

  int keys_ = 0;
  TcpStoreServer server_{
      {.listen = "127.0.0.1", .port = 0, .token = "the token", .handshake_timeout = milliseconds{300}}};
};

TEST_F(Strangers, WrongTokenIsRefusedWithAReason) {
  testing::internal::CaptureStderr();
  for (char const* token : {"", "the tokex", "the toke", "the token "}) {
    try {
      TcpStoreClient(server_.address(), token, plenty, {.rank = 3});
      ADD_FAILURE() << token;
    } catch (InvalidArgument const& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("wrong token (is SWITCHYARD_TOKEN the same"));
    }
  }
  expect_served();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("(rank 3, it says): wrong token"));
}

TEST_F(Strangers, GarbageIsClosed) {
  StoreMember const socket = dial();
  socket.send(bytes_of("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  EXPECT_TRUE(socket.is_closed());
  expect_served();
}

TEST_F(Strangers, AFrameInPlaceOfAHandshakeIsClosed) {
  StoreMember const socket = dial();
  socket.send(encode_frame_head({.op = FrameOp::set, .request = 1, .key = "key", .value = {}}));
  EXPECT_TRUE(socket.is_closed());
  expect_served();
}

TEST_F(Strangers, AMessageThatIsNotDueIsClosed) {
  for (HandshakeKind const kind : {HandshakeKind::challenge, HandshakeKind::proof, HandshakeKind::refusal,
                                   static_cast<HandshakeKind>(0), static_cast<HandshakeKind>(5)}) {
    StoreMember const socket = dial();
    socket.send(header(kind));
    EXPECT_TRUE(socket.is_closed());
  }
  expect_served();
}

TEST_F(Strangers, AHandshakeTwiceAsLongAsItShouldBeIsClosed) {
  StoreMember const socket = dial();
  auto bytes = hello();
  bytes.resize(2 * bytes.size());  // the rest is taken for the proof
  socket.send(bytes);
  EXPECT_TRUE(socket.is_closed());
  expect_served();
}

TEST_F(Strangers, ARecordedSessionIsRefused) {
  // What a rank sent in another session, word for word.
  StoreMember first = dial();
  Handshake handshake =
      Handshake::connect(Key::of_token("the token"), {.purpose = HandshakePurpose::store, .self = {}, .peer = {}});
  auto const said_first = handshake.take_output();
  first.send(said_first);
  handshake.feed(first.receive(sizeof(HandshakeChallenge)));
  auto const said_then = handshake.take_output();
  ASSERT_EQ(said_then.size(), sizeof(HandshakeProof));

  StoreMember const replay = dial();
  replay.send(said_first);
  replay.send(said_then);
  auto const answer = replay.receive(sizeof(HandshakeChallenge) + sizeof(HandshakeRefusal));
  ASSERT_EQ(answer.size(), sizeof(HandshakeChallenge) + sizeof(HandshakeRefusal));
  EXPECT_EQ(answer[sizeof(HandshakeChallenge) + sizeof(HandshakeHeader)],
            std::byte{static_cast<unsigned char>(HandshakeProblem::wrong_token)});
  EXPECT_TRUE(replay.is_closed());
  expect_served();
}

TEST_F(Strangers, SilentAndSlowOnesAreClosedInTime) {
  StoreMember const silent = dial();
  StoreMember const half = dial();
  auto const bytes = hello();
  half.send(std::span(bytes).first(20));
  StoreMember const never_proves = dial();
  never_proves.send(hello());
  StoreMember const slow = dial();
  // A byte now and then does not win time.
  std::atomic<bool> closed = false;
  std::jthread drip([&] {
    for (std::byte const& byte : hello()) {
      if (closed) return;
      slow.send({&byte, 1});
      std::this_thread::sleep_for(milliseconds{50});
    }
  });
  expect_served();
  for (StoreMember const* each : {&silent, &half, &never_proves, &slow}) EXPECT_TRUE(each->is_closed());
  closed = true;
  expect_served();
}

TEST_F(Strangers, OversizeMalformedAndForgedFramesOfAMemberAreClosed) {
  FrameHeader const oversize{.magic = frame_magic,
                             .version = frame_version,
                             .op = static_cast<std::uint16_t>(FrameOp::set),
                             .request = 2,
                             .key_length = 1,
                             .value_length = static_cast<std::uint32_t>(max_value_bytes) + 1};
  for (auto const bytes : {std::as_bytes(std::span(&oversize, 1)), bytes_of("twenty bytes of noise, or more")}) {
    StoreMember socket = dial();
    ASSERT_TRUE(socket.join("the token"));
    socket.send(bytes);
    EXPECT_TRUE(socket.is_closed());
  }
  // Who takes a connection over does not know its key.
  StoreMember victim = dial();
  ASSERT_TRUE(victim.join("the token"));
  auto const head = encode_frame_head({.op = FrameOp::set, .request = 1, .key = "forged", .value = {}});
  victim.send(head);
  victim.send(Tag{});
  EXPECT_TRUE(victim.is_closed());
  TcpStoreClient reader(server_.address(), "the token", plenty);
  EXPECT_THROW(reader.get("forged", Deadline(milliseconds{50})), Timeout);

  StoreMember twice = dial();
  ASSERT_TRUE(twice.join("the token"));
  auto const frame = twice.seal({.op = FrameOp::set, .request = 1, .key = "once", .value = {}});
  twice.send(frame);
  EXPECT_EQ(twice.next_op(), FrameOp::ok);
  twice.send(frame);
  EXPECT_TRUE(twice.is_closed());
  expect_served();
}

TEST_F(Strangers, AMemberMayNotAnswer) {
  for (FrameOp const op : {FrameOp::ok, FrameOp::value, FrameOp::error, FrameOp::unable}) {
    StoreMember socket = dial();
    ASSERT_TRUE(socket.join("the token"));
    socket.send(Frame{.op = op, .request = 1, .key = {}, .value = {}});
    EXPECT_TRUE(socket.is_closed());
  }
}

TEST_F(Strangers, AMemberThatDoesNotReadHoldsUpNobody) {
  std::vector<std::byte> const value(max_value_bytes);
  TcpStoreClient writer(server_.address(), "the token", plenty);
  writer.set("large", value);
  StoreMember lazy = dial();
  ASSERT_TRUE(lazy.join("the token"));
  for (std::uint32_t i = 0; i < 100; ++i)
    lazy.send(Frame{.op = FrameOp::get, .request = i, .key = "large", .value = {}});
  expect_served();
  EXPECT_EQ(writer.get("large", Deadline(plenty)), value);
}

TEST_F(Strangers, FramesThatArriveByteByByte) {
  StoreMember socket = dial();
  ASSERT_TRUE(socket.join("the token"));
  auto const frame = socket.seal({.op = FrameOp::set, .request = 9, .key = "key", .value = bytes_of("value")});
  for (std::byte const& byte : frame) socket.send({&byte, 1});
  EXPECT_EQ(socket.next_op(), FrameOp::ok);
}

// A server that gives each of them as long as it usually does, so that only their number makes it hurry.
class Crowd : public testing::Test {
 protected:
  Crowd() {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4096);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  ~Crowd() override { setrlimit(RLIMIT_NOFILE, &before_); }  // other tests of the process need more

  rlimit before_{};
  TcpStoreServer server_{{.listen = "127.0.0.1", .port = 0, .token = "the token"}};
};

// Two thirds say nothing, one third begins a handshake; ranks come after them and between them.
TEST_F(Crowd, OfAThousandStrangersKeepsNoRankOut) {
  constexpr int strangers = 1000;
  constexpr int ranks = 16;
  testing::internal::CaptureStderr();
  std::vector<std::unique_ptr<StoreMember>> crowd(strangers);
  std::atomic<int> arrived = 0;
  std::vector<std::jthread> threads;
  threads.emplace_back([&] {
    for (std::size_t i = 0; i < crowd.size(); ++i) {
      crowd[i] = std::make_unique<StoreMember>(server_.address());
      if (i % 3 == 0) crowd[i]->send(bytes_of("SWHS"));
      ++arrived;
    }
  });
  std::atomic<int> served = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      while (arrived < strangers * rank / ranks) std::this_thread::yield();
      TcpStoreClient client(server_.address(), "the token", plenty, {.rank = rank});
      client.set("rank" + std::to_string(rank), bytes_of("here"));
      for (int other = 0; other < ranks; ++other)
        if (client.get("rank" + std::to_string(other), Deadline(plenty)).size() == 4) ++served;
    });
  }
  threads.clear();
  EXPECT_EQ(served, ranks * ranks);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), testing::HasSubstr("no handshake yet, and others wait"));
}

}  // namespace
}  // namespace switchyard
