#include "bootstrap/tcp_store/frame.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.hpp"

namespace switchyard {

static_assert(std::endian::native == std::endian::little, "the header is copied to the wire as it is");

namespace {

ParsedFrame malformed(std::string_view problem) noexcept {
  return {.status = FrameStatus::malformed, .frame = {}, .covered = {}, .tag = {}, .bytes = 0, .problem = problem};
}

bool is_known(std::uint16_t op) noexcept {
  return op >= static_cast<std::uint16_t>(FrameOp::set) && op <= static_cast<std::uint16_t>(FrameOp::unable);
}

}  // namespace

ParsedFrame parse_frame(ByteView bytes) noexcept {
  FrameHeader header{};
  if (bytes.size() < sizeof header) return {};
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != frame_magic) return malformed("not a frame of this protocol");
  if (header.version != frame_version) return malformed("another version of the protocol");
  if (!is_known(header.op)) return malformed("unknown operation");
  if (header.key_length > max_key_bytes) return malformed("key too long");
  if (header.value_length > max_value_bytes) return malformed("value too long");

  // Cannot overflow: both lengths are below the limits.
  std::size_t const covered = sizeof header + header.key_length + header.value_length;
  std::size_t const total = covered + Tag{}.size();
  if (bytes.size() < total) return {};
  auto const key = bytes.subspan(sizeof header, header.key_length);
  ParsedFrame parsed{.status = FrameStatus::complete,
                     .frame = {},
                     .covered = bytes.first(covered),
                     .tag = bytes.subspan(covered, Tag{}.size()),
                     .bytes = total,
                     .problem = {}};
  parsed.frame.op = static_cast<FrameOp>(header.op);
  parsed.frame.request = header.request;
  parsed.frame.key = {reinterpret_cast<char const*>(key.data()), key.size()};
  parsed.frame.value = bytes.subspan(sizeof header + key.size(), header.value_length);
  return parsed;
}

std::vector<std::byte> encode_frame_head(Frame const& frame) {
  require(frame.key.size() <= max_key_bytes, "store key: expected at most {} bytes, seen {}", max_key_bytes,
          frame.key.size());
  require(frame.value.size() <= max_value_bytes, "store value: expected at most {} bytes, seen {}", max_value_bytes,
          frame.value.size());
  FrameHeader const header{.magic = frame_magic,
                           .version = frame_version,
                           .op = static_cast<std::uint16_t>(frame.op),
                           .request = frame.request,
                           .key_length = static_cast<std::uint32_t>(frame.key.size()),
                           .value_length = static_cast<std::uint32_t>(frame.value.size())};
  std::vector<std::byte> bytes(sizeof header + frame.key.size());
  auto const rest = std::ranges::copy(std::as_bytes(std::span(&header, 1)), bytes.begin()).out;
  std::ranges::copy(std::as_bytes(std::span(frame.key)), rest);
  return bytes;
}

}  // namespace switchyard
