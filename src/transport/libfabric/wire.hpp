// What an endpoint gives to its peers: its address, and the keys of its regions. Bytes that come back from a peer
// may be anything, so they are checked here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace switchyard::transport::libfabric {

struct Address {
  std::string provider;
  bool counts_remotely = true;
  std::uint32_t format = 0;     // of the name, as libfabric numbers them
  std::vector<std::byte> name;  // as fi_getname gives it
};

Opaque pack(Address const& address);
// The address of a peer; `own` is what it must be like. Throws InvalidArgument.
Address unpack_address(std::span<std::byte const> bytes, Address const& own);

// One registration: what a remote write to it names.
struct PieceKey {
  std::uint64_t key = 0;
  std::uint64_t base = 0;  // address of its first byte, as the provider counts
};

struct RegionKey {
  std::uint64_t bytes = 0;
  std::uint64_t piece_bytes = 0;  // of each piece but the last, which may be shorter
  std::vector<PieceKey> pieces;
};

Opaque pack(RegionKey const& key);
// Throws InvalidArgument.
RegionKey unpack_key(std::span<std::byte const> bytes);

}  // namespace switchyard::transport::libfabric
