// How two ends show each other that they know the token, byte by byte.
#include "bootstrap/handshake.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "support/meeting.hpp"

namespace switchyard {
namespace {

using test::bytes_of;
using ByteVector = std::vector<std::byte>;

std::string hex(ByteView bytes) {
  std::string text;
  for (std::byte const byte : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

Nonce counting_from(unsigned first) {
  Nonce nonce{};
  for (std::byte& byte : nonce) byte = static_cast<std::byte>(first++);
  return nonce;
}

constexpr Party rank_3{.rank = 3, .endpoint = 1};
constexpr Party rank_5{.rank = 5, .endpoint = 2};

// Both ends, and what they have sent so far.
class TwoEnds {
 public:
  explicit TwoEnds(std::string_view one_token = "the token", std::string_view other_token = "the token",
                   Party const& wanted = rank_5)
      : dialer(Handshake::connect(Key::of_token(one_token),
                                  {.purpose = HandshakePurpose::control, .self = rank_3, .peer = wanted},
                                  counting_from(0))),
        listener(Handshake::accept(Key::of_token(other_token),
                                   {.purpose = HandshakePurpose::control, .self = rank_5, .peer = {}},
                                   counting_from(100))) {}

  // Each to the other, until both have nothing to say. The messages in their order.
  std::vector<ByteVector> run() {
    std::vector<ByteVector> messages;
    for (bool any = true; any;) {
      any = false;
      for (auto [from, to] : {std::pair(&dialer, &listener), std::pair(&listener, &dialer)}) {
        ByteVector const bytes = from->take_output();
        if (bytes.empty()) continue;
        to->feed(bytes);
        messages.push_back(bytes);
        any = true;
      }
    }
    return messages;
  }

  [[nodiscard]] bool done() const {
    return dialer.state() == HandshakeState::done && listener.state() == HandshakeState::done;
  }

  Handshake dialer;
  Handshake listener;
};

TEST(Handshake, BothEndsKnowTheOther) {
  TwoEnds ends;
  ends.run();
  ASSERT_TRUE(ends.done());
  EXPECT_EQ(ends.listener.peer(), rank_3);
  EXPECT_EQ(ends.dialer.peer(), rank_5);
  EXPECT_EQ(ends.dialer.due(), 0U);
  for (auto [one, other] : {std::pair(&ends.dialer, &ends.listener), std::pair(&ends.listener, &ends.dialer)})
    EXPECT_EQ(one->tags_to_send().tag({bytes_of("x")}), other->tags_to_expect().tag({bytes_of("x")}));
  EXPECT_NE(ends.dialer.tags_to_send().tag({}), ends.dialer.tags_to_expect().tag({}));
}

// The bytes were computed by Python:
//
//     key = blake2b(b"switchyard key of a job's token:" + b"the token", digest_size=32).digest()
//     head = lambda kind: b"SWHS" + struct.pack("<HH", 1, kind)
//     hello = head(1) + struct.pack("<IiIiI", 2, 3, 1, 5, 2) + bytes(range(32))
//     challenge = head(2) + bytes(range(100, 132))
//     mac = lambda text: blake2b(text + hello + challenge, digest_size=32, key=key).digest()
//     head(3) + mac(b"switchyard handshake, who connects"), and so on; tags of messages:
//     blake2b(struct.pack("<Q", number) + message, digest_size=16, key=mac(b"switchyard messages, who connects"))
TEST(Handshake, BytesOnTheWireArePinned) {
  TwoEnds ends;
  std::vector<std::string> seen;
  for (ByteVector const& message : ends.run()) seen.push_back(hex(message));
  EXPECT_THAT(seen, testing::ElementsAre(
                        "53574853010001000200000003000000010000000500000002000000"
                        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                        "53574853010002006465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283",
                        "535748530100030071afde203ea8f144e7eb850dcf7d3ebacfe7ebd95096ec176e3509290e4c6eda",
                        "5357485301000300812923e4247f32870847769e21f01e2d9d5f6042f506bbf4d725eab7f2114417"));
  MessageTags sent = ends.dialer.tags_to_send();
  EXPECT_EQ(hex(sent.tag({bytes_of("first")})), "9362f22882b80c2458e6c8ae05bdedb1");
  sent.advance();
  EXPECT_EQ(hex(sent.tag({bytes_of("sec"), bytes_of("ond")})), "d9bca5193be5c6691cedb80436b65cad");
  EXPECT_EQ(hex(ends.listener.tags_to_send().tag({bytes_of("first")})), "4fed2a3ffc49de591ffad928de10289e");
}

TEST(Handshake, NoncesAreFresh) {
  EXPECT_NE(fresh_nonce(), fresh_nonce());
  auto const hello = [] {
    return Handshake::connect(Key::of_token("t"), {.purpose = HandshakePurpose::store, .self = {}, .peer = {}})
        .take_output();
  };
  EXPECT_NE(hello(), hello());
}

TEST(Handshake, AnotherTokenIsRefused) {
  for (char const* token : {"", "the tokex", "the toke", "the token ", "The token"}) {
    TwoEnds ends(token);
    auto const messages = ends.run();
    // The listener shows nothing that was made with its key.
    EXPECT_EQ(messages.size(), 4U);
    EXPECT_EQ(messages.back().size(), sizeof(HandshakeRefusal));
    EXPECT_EQ(ends.listener.state(), HandshakeState::failed);
    EXPECT_EQ(ends.listener.problem(), HandshakeProblem::wrong_token);
    EXPECT_EQ(ends.dialer.problem(), HandshakeProblem::wrong_token);
    EXPECT_TRUE(ends.dialer.refused_by_peer());
    EXPECT_FALSE(ends.listener.refused_by_peer());
  }
}

TEST(Handshake, AListenerThatLetsAnybodyInIsFound) {
  TwoEnds ends("the token", "another");
  ends.listener.feed(ends.dialer.take_output());
  ends.dialer.feed(ends.listener.take_output());
  ends.dialer.take_output();
  HandshakeProof const guess{
      .header = {.magic = handshake_magic, .version = handshake_version, .kind = HandshakeKind::proof}, .mac = {}};
  ends.dialer.feed(std::as_bytes(std::span(&guess, 1)));
  EXPECT_EQ(ends.dialer.problem(), HandshakeProblem::wrong_token);
  EXPECT_FALSE(ends.dialer.refused_by_peer());
  EXPECT_TRUE(ends.dialer.take_output().empty());
}

TEST(Handshake, WhoWantsSomebodyElseIsRefusedBeforeAnyChallenge) {
  for (Party const& wanted :
       {Party{.rank = 4, .endpoint = 2}, Party{.rank = 5, .endpoint = 1}, Party{.rank = -1, .endpoint = 2}}) {
    TwoEnds ends("the token", "the token", wanted);
    EXPECT_EQ(ends.run().size(), 2U);
    EXPECT_EQ(ends.listener.problem(), HandshakeProblem::not_wanted);
    EXPECT_EQ(ends.dialer.problem(), HandshakeProblem::not_wanted);
  }
  Handshake data = Handshake::connect(Key::of_token("the token"),
                                      {.purpose = HandshakePurpose::store, .self = rank_3, .peer = rank_5});
  TwoEnds ends;
  ends.listener.feed(data.take_output());
  EXPECT_EQ(ends.listener.problem(), HandshakeProblem::not_wanted);
}

// What one end of a recorded handshake sent is sent again to a new one.
TEST(Handshake, AReplayIsRefused) {
  TwoEnds recorded;
  auto const messages = recorded.run();
  ASSERT_TRUE(recorded.done());
  Handshake listener = Handshake::accept(Key::of_token("the token"),
                                         {.purpose = HandshakePurpose::control, .self = rank_5, .peer = {}});
  listener.feed(messages[0]);
  listener.take_output();
  listener.feed(messages[2]);
  EXPECT_EQ(listener.problem(), HandshakeProblem::wrong_token);

  Handshake dialer = Handshake::connect(Key::of_token("the token"),
                                        {.purpose = HandshakePurpose::control, .self = rank_3, .peer = rank_5});
  dialer.feed(messages[1]);
  dialer.feed(messages[3]);
  EXPECT_EQ(dialer.problem(), HandshakeProblem::wrong_token);
}

// A stranger that answers with what it was sent, or with what the same rank says elsewhere.
TEST(Handshake, AReflectionIsRefused) {
  TwoEnds ends;
  ends.listener.feed(ends.dialer.take_output());
  ends.dialer.feed(ends.listener.take_output());
  ByteVector const proof = ends.dialer.take_output();
  ends.dialer.feed(proof);
  EXPECT_EQ(ends.dialer.problem(), HandshakeProblem::wrong_token);

  // The nonce of the dialer comes back as the challenge.
  Handshake dialer =
      Handshake::connect(Key::of_token("the token"),
                         {.purpose = HandshakePurpose::control, .self = rank_5, .peer = rank_5}, counting_from(0));
  dialer.take_output();
  HandshakeChallenge const echo{
      .header = {.magic = handshake_magic, .version = handshake_version, .kind = HandshakeKind::challenge},
      .nonce = counting_from(0)};
  dialer.feed(std::as_bytes(std::span(&echo, 1)));
  dialer.feed(dialer.take_output());
  EXPECT_EQ(dialer.problem(), HandshakeProblem::wrong_token);
}

// A rank's own listener must not prove to it that it is somebody else.
TEST(Handshake, ARelayToAnotherRankIsRefused) {
  Handshake dialer = Handshake::connect(Key::of_token("the token"),
                                        {.purpose = HandshakePurpose::control, .self = rank_3, .peer = rank_5});
  Handshake self = Handshake::accept(Key::of_token("the token"),
                                     {.purpose = HandshakePurpose::control, .self = rank_3, .peer = {}});
  self.feed(dialer.take_output());
  EXPECT_EQ(self.problem(), HandshakeProblem::not_wanted);
}

TEST(Handshake, EveryFlippedBitIsNoticed) {
  TwoEnds whole;
  auto const messages = whole.run();
  for (std::size_t changed = 0; changed < messages.size(); ++changed) {
    for (std::size_t bit = 0; bit < 8 * messages[changed].size(); ++bit) {
      TwoEnds ends;
      for (std::size_t i = 0; i < messages.size(); ++i) {
        bool const from_dialer = i % 2 == 0;
        ByteVector bytes = (from_dialer ? ends.dialer : ends.listener).take_output();
        if (bytes.empty()) break;
        if (i == changed) bytes[bit / 8] ^= std::byte{1} << bit % 8;
        (from_dialer ? ends.listener : ends.dialer).feed(bytes);
      }
      // With the last message only the dialer can notice.
      EXPECT_NE(ends.dialer.state(), HandshakeState::done) << changed << ' ' << bit;
      if (changed < 3) {
        EXPECT_NE(ends.listener.state(), HandshakeState::done) << changed << ' ' << bit;
      }
    }
  }
}

TEST(Handshake, ByteByByteAndNoFurther) {
  TwoEnds ends;
  while (!ends.done()) {
    for (auto [from, to] : {std::pair(&ends.dialer, &ends.listener), std::pair(&ends.listener, &ends.dialer)}) {
      ByteVector const bytes = from->take_output();
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        ASSERT_GT(to->due(), 0U);
        ASSERT_LE(to->due(), bytes.size() - i);
        ASSERT_EQ(to->feed(std::span(bytes).subspan(i, 1)), 1U);
      }
    }
  }
  EXPECT_EQ(ends.dialer.feed(bytes_of("what follows is not its own")), 0U);
}

TEST(Handshake, EveryPrefixIsUnfinished) {
  TwoEnds whole;
  auto const messages = whole.run();
  for (std::size_t length = 0; length < messages[0].size(); ++length) {
    TwoEnds ends;
    ends.listener.feed(std::span(messages[0]).first(length));
    EXPECT_EQ(ends.listener.state(), HandshakeState::ongoing);
    EXPECT_TRUE(ends.listener.take_output().empty());
  }
}

TEST(Handshake, GarbageGetsNoAnswer) {
  TwoEnds ends;
  EXPECT_EQ(ends.listener.feed(bytes_of("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")), sizeof(HandshakeHeader));
  EXPECT_EQ(ends.listener.problem(), HandshakeProblem::malformed);
  EXPECT_TRUE(ends.listener.take_output().empty());
}

TEST(Handshake, AnotherVersionIsNamed) {
  TwoEnds ends;
  ByteVector hello = ends.dialer.take_output();
  hello[4] = std::byte{handshake_version + 1};
  ends.listener.feed(hello);
  EXPECT_EQ(ends.listener.problem(), HandshakeProblem::version);
  ByteVector refusal = ends.listener.take_output();
  refusal[4] = std::byte{handshake_version + 1};  // as the other version would send it
  ends.dialer.feed(refusal);
  EXPECT_EQ(ends.dialer.problem(), HandshakeProblem::version);
  EXPECT_TRUE(ends.dialer.refused_by_peer());
}

TEST(Handshake, ARefusalForNoKnownReason) {
  for (std::uint32_t const why : {0U, 1U, 5U, 0xffffffffU}) {
    TwoEnds ends;
    ends.dialer.take_output();
    HandshakeRefusal const refusal{
        .header = {.magic = handshake_magic, .version = handshake_version, .kind = HandshakeKind::refusal},
        .why = why};
    ends.dialer.feed(std::as_bytes(std::span(&refusal, 1)));
    EXPECT_EQ(ends.dialer.state(), HandshakeState::failed);
    EXPECT_EQ(ends.dialer.problem(), HandshakeProblem::malformed);
  }
}

TEST(ConstantTime, Compares) {
  EXPECT_TRUE(equal_in_constant_time(bytes_of("same"), bytes_of("same")));
  EXPECT_FALSE(equal_in_constant_time(bytes_of("same"), bytes_of("sama")));
  EXPECT_FALSE(equal_in_constant_time(bytes_of("same"), bytes_of("sam")));
  EXPECT_TRUE(equal_in_constant_time({}, {}));
}

}  // namespace
}  // namespace switchyard
