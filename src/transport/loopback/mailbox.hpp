// What endpoints of one process share: for each endpoint its mailbox, where peers leave writes and learn of their
// end.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>

#include "transport/transport.hpp"

namespace switchyard::transport::loopback {

class Mailbox;

inline constexpr std::uint64_t no_region = 0;  // numbers of regions start at 1

// A write on its way. Regions go by number: what a number stands for is looked up, and checked, when bytes move.
struct Parcel {
  std::shared_ptr<Mailbox> source;
  Peer to{};
  std::uint64_t from = no_region;
  std::size_t from_offset = 0;
  std::uint64_t into = no_region;
  std::size_t into_offset = 0;
  std::size_t bytes = 0;
  std::uint32_t immediate = 0;
  std::uint64_t context = 0;
};

enum class Fate : std::uint8_t { written, peer_closed, source_region_gone, target_region_gone };

// How a parcel ended, as its source learns.
struct Receipt {
  Peer to{};
  std::uint64_t context = 0;
  Fate fate = Fate::written;
};

// The owner is the thread that uses the endpoint; where nothing else is said, any thread may call.
class Mailbox {
 public:
  explicit Mailbox(std::uint64_t number) : number_(number) {}

  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }

  // By the owner. A region that is removed is no longer read by anybody when this returns.
  std::uint64_t add_region(std::span<std::byte> memory);
  void remove_region(std::uint64_t region);
  [[nodiscard]] std::optional<std::span<std::byte>> region(std::uint64_t region) const;

  // By a source. False: the mailbox is closed.
  [[nodiscard]] bool leave(Parcel parcel);
  // By the owner. Opens the next parcel: copies its bytes, and leaves a receipt with its source.
  struct Opened {
    std::uint32_t immediate = 0;
    Fate fate = Fate::written;
  };
  [[nodiscard]] std::optional<Opened> open_parcel();
  // By the owner.
  [[nodiscard]] std::optional<Receipt> next_receipt();
  // By the owner, once, at its end. Parcels that lie here fail, and those of this source are not read any more.
  void close();

 private:
  [[nodiscard]] std::optional<Parcel> next_parcel();
  void leave_receipt(Receipt const& receipt);
  [[nodiscard]] Fate copy(Parcel const& parcel) const;
  // The caller holds memory_mutex_, or is the owner, who alone changes regions_.
  [[nodiscard]] std::optional<std::span<std::byte>> find(std::uint64_t region) const;

  std::uint64_t number_;
  // Pairs leave() with next_parcel(): the source's writes into its memory happen before the copy; and
  // leave_receipt() with next_receipt(): the copy happens before the source reuses that memory.
  std::mutex queues_mutex_;
  std::deque<Parcel> parcels_;
  std::deque<Receipt> receipts_;
  bool closed_ = false;
  // Pairs copies (shared) out of this mailbox's regions, by the targets' threads, with their removal (exclusive).
  // Never taken together with another mutex.
  mutable std::shared_mutex memory_mutex_;
  std::map<std::uint64_t, std::span<std::byte>> regions_;
  std::uint64_t next_region_ = no_region + 1;
};

// The mailboxes of this process. Any thread may call.
std::shared_ptr<Mailbox> make_mailbox();
std::shared_ptr<Mailbox> find_mailbox(std::uint64_t number);

}  // namespace switchyard::transport::loopback
