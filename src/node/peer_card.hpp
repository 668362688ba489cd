// What a rank publishes about itself through the store, and the hello on a link.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

namespace switchyard {

inline constexpr std::uint32_t link_magic = 0x4b4c5753;  // "SWLK"
inline constexpr std::uint16_t link_version = 1;

using RandomBytes = std::array<std::byte, 16>;
RandomBytes random_bytes();

// Ranks that share both can connect to each other's abstract sockets and map each other's memory.
struct HostIdentity {
  std::array<char, 40> boot_id;
  std::uint64_t network_namespace;
  bool operator==(HostIdentity const&) const = default;
};
HostIdentity this_host();

struct PeerCard {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint32_t rank;
  std::uint32_t size;
  std::uint64_t pid;
  RandomBytes socket_name;
  HostIdentity host;
};
static_assert(sizeof(PeerCard) == 88 && std::is_trivially_copyable_v<PeerCard>);

// The first bytes on a link, from the rank that connects.
struct LinkHello {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t rank;
  RandomBytes secret;
};
static_assert(sizeof(LinkHello) == 24 && std::is_trivially_copyable_v<LinkHello>);

// The socket's name in the abstract namespace, without its leading zero byte.
std::string socket_name_text(RandomBytes const& name);

}  // namespace switchyard
