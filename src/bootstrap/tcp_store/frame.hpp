// Wire format of the store's protocol, once a handshake is over: a fixed header, then the key, then the value, then
// the tag of all of it. Pure functions, so that a fuzzer can have them to itself; sealed_frames.hpp makes and
// checks tags.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "bootstrap/mac.hpp"

namespace switchyard {

// Client: set and get. Server: ok, value, or a text: error where the client has asked for something wrong, unable
// where the server is at its limits. Its first frame, ok or unable with the number 0, follows the handshake.
enum class FrameOp : std::uint16_t { set = 1, get, ok, value, error, unable };

// Little-endian on the wire.
struct FrameHeader {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t op;
  std::uint32_t request;  // an answer carries the number of its request
  std::uint32_t key_length;
  std::uint32_t value_length;
};
static_assert(sizeof(FrameHeader) == 20 && std::is_trivially_copyable_v<FrameHeader>);

inline constexpr std::uint32_t frame_magic = 0x53595753;  // "SWYS"
inline constexpr std::uint16_t frame_version = 2;
inline constexpr std::size_t max_key_bytes = 256;
inline constexpr std::size_t max_value_bytes = std::size_t{16} << 20;

struct Frame {
  FrameOp op = FrameOp::ok;
  std::uint32_t request = 0;
  std::string_view key;
  ByteView value;
};

enum class FrameStatus : std::uint8_t { complete, incomplete, malformed };

struct ParsedFrame {
  FrameStatus status = FrameStatus::incomplete;
  Frame frame;               // complete: views into the parsed bytes
  ByteView covered;          // complete: what the tag is of
  ByteView tag;              // complete: as it came
  std::size_t bytes = 0;     // complete: how many of them the frame took
  std::string_view problem;  // malformed: why
};

// Looks at the first frame in `bytes`. A length over the limits is malformed as soon as the header is there,
// so nobody has to hold more than the limits allow.
ParsedFrame parse_frame(ByteView bytes) noexcept;

// Header and key; the value and the tag follow. Throws InvalidArgument when key or value is over the limits.
std::vector<std::byte> encode_frame_head(Frame const& frame);

}  // namespace switchyard
