#include "transport/faulty/endpoint.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>

#include "transport/checks.hpp"
#include "transport/faulty/drops.hpp"
#include "transport/opaque.hpp"

namespace switchyard::transport::faulty {
namespace {

constexpr std::uint64_t address_mark = 0x7379'6661'756c'7431;
constexpr std::uint64_t key_mark = 0x7379'6661'756c'7432;

// An address is this, the key of the doormat, and the address of the endpoint below.
struct AddressHead {
  std::uint64_t mark;
  std::uint32_t number;
  std::uint32_t doormat_key_bytes;
};

// A key is this and the key of the region below. Its size is known here, so that post() can refuse what the
// endpoint below would refuse only later.
struct KeyHead {
  std::uint64_t mark;
  std::uint64_t bytes;
};

Opaque joined(std::initializer_list<Opaque> parts) {
  Opaque all;
  for (Opaque const& part : parts)
    for (std::byte const byte : part) all.push_back(byte);
  return all;
}

// Takes the head off the bytes; nothing if they are too few or not marked as one.
template <typename Head>
std::optional<Head> take_head(std::span<std::byte const>& bytes, std::uint64_t mark) {
  if (bytes.size() < sizeof(Head)) return std::nullopt;
  auto const head = read_opaque<Head>(bytes.first(sizeof(Head)));
  bytes = bytes.subspan(sizeof(Head));
  return head && head->mark == mark ? head : std::nullopt;
}

class FaultyRegion final : public Region {
 public:
  FaultyRegion(FaultyEndpoint const& owner, std::unique_ptr<Region> below)
      : owner_(&owner), below_(std::move(below)) {}

  [[nodiscard]] std::span<std::byte> bytes() const noexcept override { return below_->bytes(); }
  [[nodiscard]] Opaque key() const override {
    return joined({opaque_of(KeyHead{key_mark, bytes().size()}), below_->key()});
  }
  [[nodiscard]] FaultyEndpoint const* owner() const noexcept { return owner_; }
  [[nodiscard]] Region const* below() const noexcept { return below_.get(); }

 private:
  FaultyEndpoint const* owner_;
  std::unique_ptr<Region> below_;
};

void check_share(char const* name, double share) {
  require(share >= 0 && share < 1, "{}: expected 0 to below 1, seen {}", name, share);
}

Faults const& checked_faults(Faults const& faults) {
  require(faults.number >= 0 && faults.number < max_endpoints, "number: expected 0 to below {}, seen {}",
          max_endpoints, faults.number);
  require(faults.pieces >= 1 && faults.pieces <= max_pieces, "pieces: expected 1 to {}, seen {}", max_pieces,
          faults.pieces);
  check_share("delayed", faults.delayed);
  require(faults.twice >= 0 && faults.twice <= 1, "twice: expected 0 to 1, seen {}", faults.twice);
  check_share("busy", faults.busy);
  check_share("stalled", faults.stalled);
  return faults;
}

}  // namespace

FaultyEndpoint::FaultyEndpoint(std::unique_ptr<Endpoint> below, Faults const& faults)
    : faults_(checked_faults(faults)),
      below_(std::move(below)),
      capabilities_(below_->capabilities()),
      doormat_region_(below_->register_memory(doormat_)) {
  capabilities_.provider = fmt::format("faulty({})", capabilities_.provider);
  if (faults.max_writes > 0) capabilities_.max_writes = std::min(capabilities_.max_writes, faults.max_writes);
}

Opaque FaultyEndpoint::address() const {
  Opaque const doormat_key = doormat_region_->key();
  AddressHead const head{address_mark, static_cast<std::uint32_t>(faults_.number),
                         static_cast<std::uint32_t>(doormat_key.size())};
  return joined({opaque_of(head), doormat_key, below_->address()});
}

Peer FaultyEndpoint::add_peer(Opaque const& address, std::string name) {
  std::span<std::byte const> rest(address);
  auto const head = take_head<AddressHead>(rest, address_mark);
  require(head && head->number < max_endpoints && head->doormat_key_bytes <= rest.size(),
          "address of {}: expected one of a faulty endpoint, seen {} bytes that are none", name, address.size());
  require(peer_of_number_[head->number] == nobody,
          "address of {}: expected a number that no other peer has, seen {}", name, head->number);
  auto const key = rest.first(head->doormat_key_bytes);
  auto const inner = rest.subspan(head->doormat_key_bytes);
  Peer const below = below_->add_peer(Opaque(inner.begin(), inner.end()), name);
  outgoing_.add_peer(below, below_->add_region(below, Opaque(key.begin(), key.end())));
  auto const peer = static_cast<Peer>(peers_.size());
  peers_.push_back({.below = below, .number = static_cast<int>(head->number), .name = std::move(name)});
  peer_of_number_[head->number] = static_cast<std::int32_t>(peer);
  std::erase_if(unsaid_, [&](auto const& entry) {
    if (entry.first != peers_.back().number) return false;
    outgoing_.say_finished(peer, entry.second);
    return true;
  });
  return peer;
}

PeerRegion FaultyEndpoint::add_region(Peer peer, Opaque const& key) {
  KnownPeer const& known = peers_[place_of("peer", peer, peers_.size())];
  std::span<std::byte const> rest(key);
  auto const head = take_head<KeyHead>(rest, key_mark);
  require(head.has_value(), "key of {}: expected one of a faulty endpoint, seen {} bytes that are none", known.name,
          key.size());
  PeerRegion const below = below_->add_region(known.below, Opaque(rest.begin(), rest.end()));
  regions_.push_back({below, peer, head->bytes});
  return static_cast<PeerRegion>(regions_.size() - 1);
}

std::unique_ptr<Region> FaultyEndpoint::register_memory(std::span<std::byte> memory) {
  return std::make_unique<FaultyRegion>(*this, below_->register_memory(memory));
}

Write FaultyEndpoint::checked(Write const& write) const {
  place_of("Write::to", write.to, peers_.size());
  KnownRegion const& into = regions_[place_of("Write::into", write.into, regions_.size())];
  require(into.peer == write.to, "Write::into: expected a region of peer {}, seen one of peer {}",
          static_cast<int>(write.to), static_cast<int>(into.peer));
  auto const* const from = dynamic_cast<FaultyRegion const*>(write.from);
  require(write.from == nullptr || (from != nullptr && from->owner() == this),
          "Write::from: expected a region of the same endpoint, seen another's");
  check_write(write, {.from_bytes = from != nullptr ? from->bytes().size() : 0,
                      .into_bytes = into.bytes,
                      .most_bytes = capabilities_.max_write_bytes});
  Write below = write;
  below.from = from != nullptr ? from->below() : nullptr;
  below.into = into.below;
  return below;
}

bool FaultyEndpoint::in_trouble(int& left, double share, int longest) {
  if (left > 0) {
    --left;
    return true;
  }
  if (longest < 1 || !chance_.happens(share)) return false;
  left = static_cast<int>(chance_.below(static_cast<std::size_t>(longest)));
  return true;
}

Endpoint::Posted FaultyEndpoint::post(Write const& write) {
  Write const below = checked(write);
  if (outgoing_.loss(write.to) == Loss::failed) throw PeerLost(reason(write.to));
  if (in_trouble(storm_left_, faults_.busy, faults_.max_storm)) return Posted::busy;
  if (under_way_ >= capabilities_.max_writes) return Posted::busy;
  ++under_way_;
  outgoing_.add(below);
  return Posted::yes;
}

std::size_t FaultyEndpoint::poll(std::span<Event> events) {
  ++now_;
  drop_on_purpose();
  if (!in_trouble(stall_left_, faults_.stalled, faults_.max_stall)) drain();
  outgoing_.step(now_);
  for (Event const& event : outgoing_.take_events()) hold(event);
  return give(events);
}

void FaultyEndpoint::drop_on_purpose() {
  std::uint64_t const ordered = drops_ordered();
  if (std::exchange(drops_seen_, ordered) == ordered) return;
  for (Drop const& drop : drops_of(faults_.number)) {
    std::int32_t const peer = peer_of_number_.at(static_cast<std::size_t>(drop.peer));
    if (peer == nobody) continue;
    lose(Peer{peer}, drop.loss);
    if (drop.loss == Loss::failed) hold({.kind = Event::Kind::failed, .peer = Peer{peer}});
  }
}

void FaultyEndpoint::drain() {
  constexpr int rounds = 8;  // peers may write faster than this rank polls
  std::array<Event, 16> events;
  for (int round = 0; round < rounds; ++round) {
    std::size_t const count = below_->poll(events);
    for (Event const& event : std::span(events).first(count)) take(event);
    if (count < events.size()) return;
  }
}

void FaultyEndpoint::take(Event const& event) {
  if (event.kind == Event::Kind::arrived) {
    take_part(part_of(event.immediate));
  } else if (event.context != Event::no_context) {
    outgoing_.take(event);
  } else {
    auto const found = std::ranges::find(peers_, event.peer, &KnownPeer::below);
    Event lost = event;
    lost.peer = found == peers_.end() ? Peer{nobody} : static_cast<Peer>(found - peers_.begin());
    hold(lost);
  }
}

void FaultyEndpoint::take_part(Part const& part) {
  std::int32_t const peer = peer_of_number_[static_cast<std::size_t>(part.source)];
  if (peer != nobody && outgoing_.loss(Peer{peer})) return;
  if (part.kind == PartKind::finished) {
    bool const known = peer != nobody && part.sequence < 2;
    if (!known) throw SystemError(fmt::format("faulty endpoint {}: expected a peer, seen a stranger", part.source));
    outgoing_.finished(Peer{peer}, part.sequence);
    return;
  }
  auto const result = incoming_.take(part);
  if (result.arrived) hold({.kind = Event::Kind::arrived, .immediate = *result.arrived});
  if (!result.finished_half) return;
  if (peer != nobody) {
    outgoing_.say_finished(Peer{peer}, *result.finished_half);
  } else {
    unsaid_.emplace_back(part.source, *result.finished_half);
  }
}

std::size_t FaultyEndpoint::give(std::span<Event> events) {
  std::size_t most = events.size();
  if (faults_.max_events > 0) most = std::min(most, faults_.max_events);
  chance_.shuffle(late_);
  std::size_t count = 0;
  std::erase_if(late_, [&](LateEvent const& late) {
    if (count == most || late.due > now_) return false;
    if (late.event.kind != Event::Kind::arrived && late.event.context != Event::no_context) --under_way_;
    events[count++] = late.event;
    return true;
  });
  return count;
}

std::string FaultyEndpoint::reason(Peer peer) const {
  if (peer == Peer{nobody}) return below_->reason(peer);
  KnownPeer const& known = peers_[place_of("peer", peer, peers_.size())];
  if (known.lost_on_purpose) return fmt::format("{}: a faulty endpoint has dropped it on purpose", known.name);
  return below_->reason(known.below);
}

void FaultyEndpoint::lose(Peer peer, Loss loss) {
  peers_[place_of("peer", peer, peers_.size())].lost_on_purpose = true;
  outgoing_.lose(peer, loss);
}

}  // namespace switchyard::transport::faulty
