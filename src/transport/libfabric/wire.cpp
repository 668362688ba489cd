#include "transport/libfabric/wire.hpp"

#include <netinet/in.h>
#include <rdma/fabric.h>

#include <cstring>

#include "base/check.hpp"

namespace switchyard::transport::libfabric {

namespace {

constexpr std::uint32_t address_mark = 0x31415953;  // "SYA1"
constexpr std::uint32_t key_mark = 0x314b5953;      // "SYK1"

struct AddressHead {
  std::uint32_t mark;
  std::uint32_t format;
  std::uint32_t provider_bytes;
  std::uint32_t name_bytes;
  std::uint64_t counts_remotely;
};

struct KeyHead {
  std::uint32_t mark;
  std::uint32_t pieces;
  std::uint64_t bytes;
  std::uint64_t piece_bytes;
};

void append(Opaque& to, void const* from, std::size_t bytes) {
  std::size_t const before = to.size();
  to.resize(before + bytes);
  if (bytes > 0) std::memcpy(to.data() + before, from, bytes);
}

template <typename Head>
Head head_of(std::span<std::byte const> bytes, char const* what) {
  require(bytes.size() >= sizeof(Head), "{}: expected at least {} bytes, seen {}", what, sizeof(Head),
          bytes.size());
  Head head{};
  std::memcpy(&head, bytes.data(), sizeof head);
  return head;
}

// An address of IP that names no port, or another family than it says, would be taken by providers, and then lead
// nowhere.
void check_ip(Address const& address) {
  if (address.format != FI_SOCKADDR_IN && address.format != FI_SOCKADDR_IN6) return;
  sockaddr_in start{};  // family and port lie at the same place in both
  std::memcpy(&start, address.name.data(), sizeof start);
  sa_family_t const family = address.format == FI_SOCKADDR_IN ? AF_INET : AF_INET6;
  require(start.sin_family == family, "peer address: expected family {}, seen {}", family, start.sin_family);
  require(start.sin_port != 0, "peer address: expected a port, seen 0");
}

}  // namespace

Opaque pack(Address const& address) {
  AddressHead const head{address_mark, address.format, static_cast<std::uint32_t>(address.provider.size()),
                         static_cast<std::uint32_t>(address.name.size()), address.counts_remotely ? 1U : 0U};
  Opaque bytes;
  append(bytes, &head, sizeof head);
  append(bytes, address.provider.data(), address.provider.size());
  append(bytes, address.name.data(), address.name.size());
  return bytes;
}

Address unpack_address(std::span<std::byte const> bytes, Address const& own) {
  auto const head = head_of<AddressHead>(bytes, "peer address");
  require(head.mark == address_mark, "peer address: expected one of libfabric, seen other bytes");
  std::uint64_t const expected = sizeof head + std::uint64_t{head.provider_bytes} + head.name_bytes;
  require(bytes.size() == expected, "peer address: expected {} bytes, seen {}", expected, bytes.size());
  Address address;
  address.format = head.format;
  address.counts_remotely = head.counts_remotely != 0;
  auto const* const provider = reinterpret_cast<char const*>(bytes.data() + sizeof head);
  address.provider.assign(provider, head.provider_bytes);
  require(address.provider == own.provider,
          "peer address: expected provider {}, seen {}; SWITCHYARD_FABRIC_PROVIDER can say the same on all nodes",
          own.provider, address.provider);
  require(address.counts_remotely == own.counts_remotely,
          "peer address: expected an endpoint that counts {}, as this one does, seen another",
          own.counts_remotely ? "by immediates" : "by messages");
  require(address.format == own.format && head.name_bytes == own.name.size(),
          "peer address: expected {} bytes of format {}, seen {} of format {}", own.name.size(), own.format,
          head.name_bytes, head.format);
  auto const name = bytes.last(head.name_bytes);
  address.name.assign(name.begin(), name.end());
  check_ip(address);
  return address;
}

Opaque pack(RegionKey const& key) {
  KeyHead const head{key_mark, static_cast<std::uint32_t>(key.pieces.size()), key.bytes, key.piece_bytes};
  Opaque bytes;
  append(bytes, &head, sizeof head);
  append(bytes, key.pieces.data(), key.pieces.size() * sizeof(PieceKey));
  return bytes;
}

RegionKey unpack_key(std::span<std::byte const> bytes) {
  auto const head = head_of<KeyHead>(bytes, "key of a region");
  require(head.mark == key_mark, "key of a region: expected one of libfabric, seen other bytes");
  std::uint64_t const expected = sizeof head + std::uint64_t{head.pieces} * sizeof(PieceKey);
  require(bytes.size() == expected, "key of a region: expected {} bytes, seen {}", expected, bytes.size());
  if (head.bytes == 0 || head.piece_bytes == 0) {
    throw InvalidArgument(
        fmt::format("key of a region: expected some bytes, seen {} in pieces of {}", head.bytes, head.piece_bytes));
  }
  std::uint64_t const pieces = (head.bytes - 1) / head.piece_bytes + 1;
  require(head.pieces == pieces, "key of a region: expected {} pieces for {} bytes, seen {}", pieces, head.bytes,
          head.pieces);
  RegionKey key{head.bytes, head.piece_bytes, {}};
  key.pieces.resize(head.pieces);
  std::memcpy(key.pieces.data(), bytes.data() + sizeof head, head.pieces * sizeof(PieceKey));
  return key;
}

}  // namespace switchyard::transport::libfabric
