// What crosses between nodes: one-sided writes into memory that the peer has registered, each of which carries a
// number (the immediate) that the peer learns once all bytes of that write lie in its memory.
//
// What a caller may rely on, and nothing else, because no fabric promises more:
// - An `arrived` event means that all bytes of that one write are there. Nothing between two writes is ordered, and
//   neither are the bytes within one: never poll payload, never infer one write's arrival from another's.
// - A `sent` event means that the source may use the memory of that write again. It says nothing about arrival.
// - Each write arrives once, in whatever order; which write it was is for the immediate to say.
// - A dead peer is mostly silent: a `failed` event may name it, or nothing may come at all. Whoever waits has a
//   deadline, and control connections that show who is gone.
//
// A back end is a folder here: loopback (threads of a process), libfabric, and faulty (a decorator of any other).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard::transport {

// An address of an endpoint, or what a peer needs to write into a region: bytes that only the same back end of the
// peer can read. They are checked there, since they come from outside.
using Opaque = std::vector<std::byte>;

// A peer of an endpoint: numbers count from 0 in the order in which peers were added.
enum class Peer : std::int32_t {};
// A region of a peer, as an endpoint knows it: numbers count over all its peers, in the order in which regions were
// added.
enum class PeerRegion : std::int32_t {};

// What an endpoint can do, as its provider was asked.
struct Capabilities {
  std::string provider;             // "loopback", "net", "verbs;ofi_rxm", "efa", "cxi"
  std::string nic;                  // as the provider calls it
  std::size_t max_write_bytes = 0;  // of one write
  std::size_t max_writes = 0;       // posted, with no `sent` yet; post() is busy beyond
  bool counts_remotely = true;      // the provider itself delivers immediates; otherwise a signal follows the write
  std::size_t region_bytes_limit = 0;  // of one registration; larger regions consist of several
};

// Memory of this process that peers may write to and that writes may start from. It stays registered as long as
// this object lives, which must not outlive its endpoint; the memory must outlive it. It may go only when no write
// from it or to it is under way: its owner knows that from its own events and from those of its peers.
class Region {
 public:
  Region() = default;
  Region(Region const&) = delete;
  Region& operator=(Region const&) = delete;
  virtual ~Region() = default;

  [[nodiscard]] virtual std::span<std::byte> bytes() const noexcept = 0;
  // What peers pass to Endpoint::add_region.
  [[nodiscard]] virtual Opaque key() const = 0;
};

struct Write {
  Peer to{};
  Region const* from = nullptr;  // of the same endpoint; nullptr: the write has no bytes, only its immediate
  std::size_t from_offset = 0;   // in bytes
  PeerRegion into{};             // of that peer; also when there are no bytes, as some providers want a key
  std::size_t into_offset = 0;
  std::size_t bytes = 0;
  std::uint32_t immediate = 0;
  std::uint64_t context = 0;  // comes back in the `sent` or `failed` event of this write; not Event::no_context
};

struct Event {
  enum class Kind : std::uint8_t {
    sent,     // the memory of the write with `context` is free again
    arrived,  // a write of some peer, with `immediate`
    failed,   // the write with `context` to `peer` may not arrive, and its memory is free again; or (context:
              // no_context) the peer is lost
  };
  static constexpr std::uint64_t no_context = ~std::uint64_t{0};

  Kind kind = Kind::sent;
  std::uint32_t immediate = 0;
  std::uint64_t context = no_context;
  Peer peer{-1};  // of `failed`; -1 when the provider does not name it
};

// One end on one NIC. It is used by one thread at a time, and makes progress only within post() and poll(): a rank
// that waits for anything must keep polling, because its peers' writes may need that.
class Endpoint {
 public:
  Endpoint() = default;
  Endpoint(Endpoint const&) = delete;
  Endpoint& operator=(Endpoint const&) = delete;
  virtual ~Endpoint() = default;

  [[nodiscard]] virtual Capabilities const& capabilities() const noexcept = 0;
  [[nodiscard]] virtual Opaque address() const = 0;

  // `name` says in errors who it is, such as "rank 5 on node 1". Peers stay until the endpoint goes. Throws
  // InvalidArgument when the bytes are not an address of this back end.
  virtual Peer add_peer(Opaque const& address, std::string name) = 0;
  // Throws InvalidArgument when the bytes are no key of this back end.
  virtual PeerRegion add_region(Peer peer, Opaque const& key) = 0;
  // Throws SystemError, saying what the limit is, when the memory cannot be registered.
  virtual std::unique_ptr<Region> register_memory(std::span<std::byte> memory) = 0;

  enum class Posted : std::uint8_t {
    yes,   // a `sent` or `failed` event will follow
    busy,  // nothing was posted: poll, and try again before a deadline
  };
  // Throws InvalidArgument when the write does not lie within both regions, and PeerLost when the provider has said
  // that the peer is gone.
  virtual Posted post(Write const& write) = 0;
  // Fills in the events that have come, without waiting; returns how many. Throws SystemError when the endpoint
  // itself has failed.
  virtual std::size_t poll(std::span<Event> events) = 0;
  // Why the last `failed` event of a peer came, in words, with the peer's name.
  [[nodiscard]] virtual std::string reason(Peer peer) const = 0;
};

}  // namespace switchyard::transport
