// The wire format of the store.
#include "bootstrap/tcp_store/frame.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

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

TEST(Frame, RoundTrip) {
  for (std::string const& value : {std::string(), std::string("v"), std::string(100000, 'x')}) {
    auto const bytes = encode_frame({.op = FrameOp::set, .request = 7, .key = "a key", .value = bytes_of(value)});
    ParsedFrame const parsed = parse_frame(bytes);
    ASSERT_EQ(parsed.status, FrameStatus::complete);
    EXPECT_EQ(parsed.bytes, bytes.size());
    EXPECT_EQ(parsed.frame.op, FrameOp::set);
    EXPECT_EQ(parsed.frame.request, 7U);
    EXPECT_EQ(parsed.frame.key, "a key");
    EXPECT_EQ(encode_frame(parsed.frame), bytes);
  }
}

TEST(Frame, BytesOnTheWireArePinned) {
  auto const bytes = encode_frame({.op = FrameOp::get, .request = 0x01020304, .key = "k", .value = {}});
  std::string const expected("SWYS\x01\x00\x03\x00\x04\x03\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00k", 21);
  EXPECT_EQ(std::string(reinterpret_cast<char const*>(bytes.data()), bytes.size()), expected);
}

TEST(Frame, EveryPrefixIsIncomplete) {
  auto const bytes = encode_frame({.op = FrameOp::set, .request = 1, .key = "key", .value = bytes_of("value")});
  for (std::size_t n = 0; n < bytes.size(); ++n)
    EXPECT_EQ(parse_frame(std::span(bytes).first(n)).status, FrameStatus::incomplete) << n;
}

TEST(Frame, TakesTheFirstOfSeveral) {
  auto bytes = encode_frame({.op = FrameOp::get, .request = 1, .key = "first", .value = {}});
  std::size_t const first = bytes.size();
  auto const second = encode_frame({.op = FrameOp::get, .request = 2, .key = "second", .value = {}});
  bytes.insert(bytes.end(), second.begin(), second.end());
  EXPECT_EQ(parse_frame(bytes).bytes, first);
  EXPECT_EQ(parse_frame(std::span(bytes).subspan(first)).frame.key, "second");
}

TEST(Frame, MalformedHeaders) {
  auto const status = [](auto change) {
    FrameHeader header = good_header();
    change(header);
    return parse_frame(with_header(header)).status;
  };
  EXPECT_EQ(status([](FrameHeader&) {}), FrameStatus::complete);
  EXPECT_EQ(status([](FrameHeader& header) { header.magic ^= 1; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { ++header.version; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.op = 0; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.op = 8; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.key_length = max_key_bytes + 1; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.value_length = max_value_bytes + 1; }), FrameStatus::malformed);
  EXPECT_EQ(status([](FrameHeader& header) { header.key_length = header.value_length = 0xffffffff; }),
            FrameStatus::malformed);
}

TEST(Frame, AStrangerMaySendLess) {
  FrameHeader header = good_header();
  header.value_length = static_cast<std::uint32_t>(hello_limits.value_bytes) + 1;
  EXPECT_EQ(parse_frame(with_header(header)).status, FrameStatus::incomplete);
  EXPECT_EQ(parse_frame(with_header(header), hello_limits).status, FrameStatus::malformed);
}

TEST(Frame, EncodingRefusesWhatParsingWould) {
  std::string const key(max_key_bytes + 1, 'k');
  std::vector<std::byte> const value(max_value_bytes + 1);
  EXPECT_THROW(encode_frame({.op = FrameOp::set, .request = 1, .key = key, .value = {}}), InvalidArgument);
  EXPECT_THROW(encode_frame({.op = FrameOp::set, .request = 1, .key = "k", .value = value}), InvalidArgument);
}

}  // namespace
}  // namespace switchyard
