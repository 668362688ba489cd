// The wire format of the store.
#include "bootstrap/tcp_store/frame.hpp"

#include <gtest/gtest.h>
#include <sodium.h>

#include <string>

#include "bootstrap/tcp_store/sealed_frames.hpp"
#include "support/meeting.hpp"
#include "switchyard/error.hpp"

namespace switchyard {
namespace {

using test::bytes_of;

std::vector<std::byte> with_header(FrameHeader const& header) {
  auto const bytes = std::as_bytes(std::span(&header, 1));
  return {bytes.begin(), bytes.end()};
}

FrameHeader good_header() {
  return {
      .magic = frame_magic, .version = frame_version, .op = 2, .request = 1, .key_length = 0, .value_length = 0};
}

Mac const key_bytes{std::byte{1}, std::byte{2}, std::byte{3}};

MessageTags tags() {
  return MessageTags(Key(key_bytes));
}

std::vector<std::byte> sealed(Frame const& frame) {
  return FrameSealer(tags()).seal_whole(frame);
}

TEST(Frame, RoundTrip) {
  for (std::string const& value : {std::string(), std::string("v"), std::string(100000, 'x')}) {
    auto const bytes = sealed({.op = FrameOp::set, .request = 7, .key = "a key", .value = bytes_of(value)});
    FrameOpener opener(tags());
    opener.append(bytes);
    ParsedFrame const parsed = opener.next();
    ASSERT_EQ(parsed.status, FrameStatus::complete);
    EXPECT_EQ(parsed.bytes, bytes.size());
    EXPECT_EQ(parsed.frame.op, FrameOp::set);
    EXPECT_EQ(parsed.frame.request, 7U);
    EXPECT_EQ(parsed.frame.key, "a key");
    EXPECT_EQ(sealed(parsed.frame), bytes);
  }
}

TEST(Frame, BytesOnTheWireArePinned) {
  auto const bytes = sealed({.op = FrameOp::get, .request = 0x01020304, .key = "k", .value = {}});
  std::string expected("SWYS\x02\x00\x02\x00\x04\x03\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00k", 21);
  // The tag, by libsodium itself: the first message has the number 0.
  std::string const hashed = std::string(8, '\0') + expected;
  std::string tag(16, ' ');
  crypto_generichash(reinterpret_cast<unsigned char*>(tag.data()), tag.size(),
                     reinterpret_cast<unsigned char const*>(hashed.data()), hashed.size(),
                     reinterpret_cast<unsigned char const*>(key_bytes.data()), key_bytes.size());
  EXPECT_EQ(std::string(reinterpret_cast<char const*>(bytes.data()), bytes.size()), expected + tag);
}

TEST(Frame, EveryPrefixIsIncomplete) {
  auto const bytes = sealed({.op = FrameOp::set, .request = 1, .key = "key", .value = bytes_of("value")});
  for (std::size_t n = 0; n < bytes.size(); ++n)
    EXPECT_EQ(parse_frame(std::span(bytes).first(n)).status, FrameStatus::incomplete) << n;
}

TEST(Frame, OneAfterAnother) {
  FrameSealer sealer(tags());
  FrameOpener opener(tags());
  for (char const* key : {"first", "second", "third"})
    opener.append(sealer.seal_whole({.op = FrameOp::get, .request = 1, .key = key, .value = {}}));
  for (char const* key : {"first", "second", "third"}) {
    ParsedFrame const parsed = opener.next();
    ASSERT_EQ(parsed.status, FrameStatus::complete);
    EXPECT_EQ(parsed.frame.key, key);
    opener.consume(parsed);
  }
  EXPECT_EQ(opener.next().status, FrameStatus::incomplete);
}

FrameStatus opened(std::vector<std::vector<std::byte>> const& frames) {
  FrameOpener opener(tags());
  for (auto const& frame : frames) opener.append(frame);
  for (;;) {
    ParsedFrame const parsed = opener.next();
    if (parsed.status != FrameStatus::complete) return parsed.status;
    opener.consume(parsed);
  }
}

TEST(Frame, EveryFlippedBitIsNoticed) {
  auto const bytes = sealed({.op = FrameOp::set, .request = 1, .key = "key", .value = bytes_of("value")});
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    auto changed = bytes;
    changed[bit / 8] ^= std::byte{1} << bit % 8;
    FrameOpener opener(tags());
    opener.append(changed);
    FrameStatus status = opener.next().status;
    // A length that has grown waits for bytes that have not come.
    if (status == FrameStatus::incomplete) {
      opener.append(std::vector<std::byte>(max_value_bytes));
      status = opener.next().status;
    }
    EXPECT_EQ(status, FrameStatus::malformed) << bit;
  }
}

TEST(Frame, RepeatedSwappedAndMissingOnesAreNoticed) {
  FrameSealer sealer(tags());
  std::vector<std::vector<std::byte>> frames;
  for (std::uint32_t i = 0; i < 3; ++i)
    frames.push_back(sealer.seal_whole({.op = FrameOp::get, .request = i, .key = "k", .value = {}}));
  EXPECT_EQ(opened({frames[0], frames[1], frames[2]}), FrameStatus::incomplete);
  EXPECT_EQ(opened({frames[0], frames[0]}), FrameStatus::malformed);
  EXPECT_EQ(opened({frames[1], frames[0]}), FrameStatus::malformed);
  EXPECT_EQ(opened({frames[0], frames[2]}), FrameStatus::malformed);
}

TEST(Frame, MalformedHeaders) {
  auto const status = [](auto change) {
    FrameHeader header = good_header();
    change(header);
    return parse_frame(with_header(header)).status;
  };
  EXPECT_EQ(status([](FrameHeader&) {}), FrameStatus::incomplete);  // its tag is not there yet
  EXPECT_EQ(status([](FrameHeader& header) { header.magic ^= 1; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { ++header.version; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.op = 0; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.op = 7; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.key_length = max_key_bytes + 1; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.value_length = max_value_bytes + 1; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.key_length = header.value_length = 0xffffffff; }),
            FrameStatus::malformed);
}

TEST(Frame, EncodingRefusesWhatParsingWould) {
  std::string const key(max_key_bytes + 1, 'k');
  std::vector<std::byte> const value(max_value_bytes + 1);
  EXPECT_THROW(encode_frame_head({.op = FrameOp::set, .request = 1, .key = key, .value = {}}), InvalidArgument);
  EXPECT_THROW(encode_frame_head({.op = FrameOp::set, .request = 1, .key = "k", .value = value}), InvalidArgument);
}

}  // namespace
}  // namespace switchyard
