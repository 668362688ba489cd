#include <array>
#include <utility>

#include "base/random.hpp"
#include "transport/checks.hpp"
#include "transport/loopback/loopback.hpp"
#include "transport/loopback/mailbox.hpp"
#include "transport/opaque.hpp"

namespace switchyard::transport::loopback {
namespace {

// Addresses and keys of another process, and bytes that are neither, do not have it.
using ProcessMark = std::array<std::byte, 16>;

ProcessMark const& process_mark() {
  static ProcessMark const mark = [] {
    ProcessMark bytes{};
    fill_random(bytes);
    return bytes;
  }();
  return mark;
}

// Which of the two it is: a part of a key must not pass for an address.
constexpr std::uint64_t address_kind = 0x7379'6c6f'6f70'6131;
constexpr std::uint64_t key_kind = 0x7379'6c6f'6f70'6b31;

struct Address {
  std::uint64_t kind;
  ProcessMark process;
  std::uint64_t mailbox;
};

struct Key {
  std::uint64_t kind;
  ProcessMark process;
  std::uint64_t mailbox;
  std::uint64_t region;
};

class LoopbackRegion final : public Region {
 public:
  LoopbackRegion(std::shared_ptr<Mailbox> mailbox, std::span<std::byte> memory)
      : mailbox_(std::move(mailbox)), memory_(memory), number_(mailbox_->add_region(memory)) {}
  ~LoopbackRegion() override { mailbox_->remove_region(number_); }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept override { return memory_; }
  [[nodiscard]] Opaque key() const override {
    return opaque_of(Key{key_kind, process_mark(), mailbox_->number(), number_});
  }
  [[nodiscard]] Mailbox const& mailbox() const noexcept { return *mailbox_; }
  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }

 private:
  std::shared_ptr<Mailbox> mailbox_;
  std::span<std::byte> memory_;
  std::uint64_t number_;
};

struct KnownPeer {
  std::shared_ptr<Mailbox> mailbox;
  std::string name;
  Fate last_failure = Fate::peer_closed;
};

struct KnownRegion {
  Peer peer{};
  std::uint64_t number = no_region;
  std::size_t bytes = 0;
};

class LoopbackEndpoint final : public Endpoint {
 public:
  explicit LoopbackEndpoint(Options const& options);
  ~LoopbackEndpoint() override { mailbox_->close(); }

  [[nodiscard]] Capabilities const& capabilities() const noexcept override { return capabilities_; }
  [[nodiscard]] Opaque address() const override {
    return opaque_of(Address{address_kind, process_mark(), mailbox_->number()});
  }
  Peer add_peer(Opaque const& address, std::string name) override;
  PeerRegion add_region(Peer peer, Opaque const& key) override;
  std::unique_ptr<Region> register_memory(std::span<std::byte> memory) override;
  Posted post(Write const& write) override;
  std::size_t poll(std::span<Event> events) override;
  [[nodiscard]] std::string reason(Peer peer) const override;

 private:
  [[nodiscard]] Parcel checked_parcel(Write const& write) const;
  Event event_of(Receipt const& receipt);

  Capabilities capabilities_;
  std::shared_ptr<Mailbox> mailbox_ = make_mailbox();
  std::vector<KnownPeer> peers_;
  std::vector<KnownRegion> regions_;
  std::size_t under_way_ = 0;  // writes posted, with no receipt polled yet
};

LoopbackEndpoint::LoopbackEndpoint(Options const& options)
    : capabilities_{.provider = "loopback",
                    .nic = "this process",
                    .max_write_bytes = options.max_write_bytes,
                    .max_writes = options.max_writes,
                    .counts_remotely = true,
                    .region_bytes_limit = options.region_bytes_limit} {
  require(options.max_writes > 0, "max_writes: expected at least 1, seen {}", options.max_writes);
}

Peer LoopbackEndpoint::add_peer(Opaque const& address, std::string name) {
  auto const read = read_opaque<Address>(address);
  require(read && read->kind == address_kind && read->process == process_mark(),
          "address of {}: expected one of a loopback endpoint of this process, seen {} bytes that are none", name,
          address.size());
  auto mailbox = find_mailbox(read->mailbox);
  require(mailbox != nullptr, "address of {}: expected an endpoint that exists, seen number {}", name,
          read->mailbox);
  peers_.push_back({std::move(mailbox), std::move(name)});
  return static_cast<Peer>(peers_.size() - 1);
}

PeerRegion LoopbackEndpoint::add_region(Peer peer, Opaque const& key) {
  KnownPeer const& known = peers_[place_of("peer", peer, peers_.size())];
  auto const read = read_opaque<Key>(key);
  bool const its = read && read->kind == key_kind && read->process == process_mark();
  require(its && read->mailbox == known.mailbox->number(),
          "key of {}: expected one of its regions, seen {} bytes that are none", known.name, key.size());
  auto const memory = known.mailbox->region(read->region);
  require(memory.has_value(), "key of {}: expected a region that is registered, seen number {}", known.name,
          read->region);
  regions_.push_back({peer, read->region, memory->size()});
  return static_cast<PeerRegion>(regions_.size() - 1);
}

std::unique_ptr<Region> LoopbackEndpoint::register_memory(std::span<std::byte> memory) {
  if (memory.size() > capabilities_.region_bytes_limit) {
    throw SystemError(fmt::format("register_memory: expected at most {} bytes, seen {}",
                                  capabilities_.region_bytes_limit, memory.size()));
  }
  return std::make_unique<LoopbackRegion>(mailbox_, memory);
}

Parcel LoopbackEndpoint::checked_parcel(Write const& write) const {
  place_of("Write::to", write.to, peers_.size());
  KnownRegion const& into = regions_[place_of("Write::into", write.into, regions_.size())];
  require(into.peer == write.to, "Write::into: expected a region of peer {}, seen one of peer {}",
          static_cast<int>(write.to), static_cast<int>(into.peer));
  auto const* const from = dynamic_cast<LoopbackRegion const*>(write.from);
  bool const ours = write.from == nullptr || (from != nullptr && &from->mailbox() == mailbox_.get());
  require(ours, "Write::from: expected a region of the same endpoint, seen another's");
  check_write(write, {.from_bytes = from != nullptr ? from->bytes().size() : 0,
                      .into_bytes = into.bytes,
                      .most_bytes = capabilities_.max_write_bytes});
  return {.source = mailbox_,
          .to = write.to,
          .from = from != nullptr ? from->number() : no_region,
          .from_offset = write.from_offset,
          .into = into.number,
          .into_offset = write.into_offset,
          .bytes = write.bytes,
          .immediate = write.immediate,
          .context = write.context};
}

Endpoint::Posted LoopbackEndpoint::post(Write const& write) {
  Parcel parcel = checked_parcel(write);
  if (under_way_ >= capabilities_.max_writes) return Posted::busy;
  KnownPeer& peer = peers_[static_cast<std::size_t>(write.to)];
  if (!peer.mailbox->leave(std::move(parcel))) {
    peer.last_failure = Fate::peer_closed;
    throw PeerLost(reason(write.to));
  }
  ++under_way_;
  return Posted::yes;
}

Event LoopbackEndpoint::event_of(Receipt const& receipt) {
  --under_way_;
  if (receipt.fate == Fate::written) return {.kind = Event::Kind::sent, .context = receipt.context};
  peers_[static_cast<std::size_t>(receipt.to)].last_failure = receipt.fate;
  return {.kind = Event::Kind::failed, .context = receipt.context, .peer = receipt.to};
}

std::size_t LoopbackEndpoint::poll(std::span<Event> events) {
  std::size_t count = 0;
  while (count < events.size()) {
    auto const receipt = mailbox_->next_receipt();
    if (!receipt) break;
    events[count++] = event_of(*receipt);
  }
  while (count < events.size()) {
    auto const opened = mailbox_->open_parcel();
    if (!opened) break;
    if (opened->fate != Fate::written) continue;  // its source learns of that
    events[count++] = {.kind = Event::Kind::arrived, .immediate = opened->immediate};
  }
  return count;
}

std::string LoopbackEndpoint::reason(Peer peer) const {
  KnownPeer const& known = peers_[place_of("peer", peer, peers_.size())];
  switch (known.last_failure) {
    case Fate::source_region_gone:
      return fmt::format("{}: the region that a write started from has gone", known.name);
    case Fate::target_region_gone: return fmt::format("{}: the region that was written to has gone", known.name);
    case Fate::written:
    case Fate::peer_closed: break;
  }
  return fmt::format("{}: its endpoint has gone", known.name);
}

}  // namespace

std::unique_ptr<Endpoint> make_endpoint(Options const& options) {
  return std::make_unique<LoopbackEndpoint>(options);
}

}  // namespace switchyard::transport::loopback
