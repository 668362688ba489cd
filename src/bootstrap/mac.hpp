// Keyed hashes, by which two sides show each other that they know a key, and tell each other's messages from
// others': BLAKE2b of libsodium.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

namespace switchyard {

using ByteView = std::span<std::byte const>;

// Proves knowledge of a key.
using Mac = std::array<std::byte, 32>;
// Follows a message. Shorter: it can be tried once, on one connection, so nothing is gained by more bits.
using Tag = std::array<std::byte, 16>;

class Key {
 public:
  explicit Key(Mac const& bytes) noexcept : bytes_(bytes) {}
  ~Key();
  Key(Key const&) = default;
  Key& operator=(Key const&) = default;

  // What the ranks of a job compute from its token: whatever its length, 32 bytes that do not give it away.
  static Key of_token(std::string_view token);

  // The hash of `parts`, one after the other. They must be such that no two different uses join to the same bytes.
  [[nodiscard]] Mac mac(std::initializer_list<ByteView> parts) const;
  [[nodiscard]] ByteView bytes() const noexcept { return bytes_; }

 private:
  Mac bytes_;
};

// Takes as long wherever they differ, so that timing does not lead to the right bytes one by one.
bool equal_in_constant_time(ByteView one, ByteView other) noexcept;

// The messages of one direction of a connection: each is hashed with its number, so that none can be changed, left
// out, repeated or moved.
class MessageTags {
 public:
  explicit MessageTags(Key const& key) : key_(key) {}
  // Of the message whose turn it is.
  [[nodiscard]] Tag tag(std::initializer_list<ByteView> parts) const;
  void advance() noexcept { ++number_; }

 private:
  Key key_;
  std::uint64_t number_ = 0;
};

}  // namespace switchyard
