// Wire format of the store's protocol: a fixed header, then the key, then the value. Pure functions, so that
// a fuzzer can have them to itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace switchyard {

// Client: hello (value: the job token) first, then set and get. Server: ok, value, or a text: error where the
// client has asked for something wrong, unable where the server is at its limits.
enum class FrameOp : std::uint16_t { hello = 1, set, get, ok, value, error, unable };

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
inline constexpr std::uint16_t frame_version = 1;
inline constexpr std::size_t max_key_bytes = 256;
inline constexpr std::size_t max_value_bytes = std::size_t{16} << 20;

struct FrameLimits {
  std::size_t key_bytes = max_key_bytes;
  std::size_t value_bytes = max_value_bytes;
};
// What is read of a connection that has not shown the token yet.
inline constexpr FrameLimits hello_limits{.key_bytes = 0, .value_bytes = 1024};

struct Frame {
  FrameOp op = FrameOp::hello;
  std::uint32_t request = 0;
  std::string_view key;
  std::span<std::byte const> value;
};

enum class FrameStatus : std::uint8_t { complete, incomplete, malformed };

struct ParsedFrame {
  FrameStatus status = FrameStatus::incomplete;
  Frame frame;               // complete: views into the parsed bytes
  std::size_t bytes = 0;     // complete: how many of them the frame took
  std::string_view problem;  // malformed: why
};

// Looks at the first frame in `bytes`. A length over the limits is malformed as soon as the header is there,
// so nobody has to hold more than the limits allow.
ParsedFrame parse_frame(std::span<std::byte const> bytes, FrameLimits const& limits = {}) noexcept;

// Header and key; the value follows. Throws InvalidArgument when key or value is over the limits.
std::vector<std::byte> encode_frame_head(Frame const& frame);
std::vector<std::byte> encode_frame(Frame const& frame);

}  // namespace switchyard
