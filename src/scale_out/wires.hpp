// The endpoints of a rank to its neighbours: what is written to whom, what waits until the transport has room, and
// how many writes there have been.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "job/message.hpp"
#include "scale_out/back_end.hpp"
#include "scale_out/neighbours.hpp"
#include "switchyard/measure.hpp"
#include "transport/immediate.hpp"
#include "transport/transport.hpp"

namespace switchyard::scale_out {

// What a write is; the number travels in its immediate.
enum class Channel : std::uint8_t {
  letter,
  chunk,
  credit,  // gives a slot back
  notice,
  notice_taken,  // gives the place of a notice back
  farewell,      // the last word of a port that ends: it takes nothing more
  proof,         // the first through each endpoint: of who is there (proofs.hpp)
};
inline constexpr int num_channels = 7;

struct Outgoing {
  Channel channel = Channel::letter;
  int neighbour = 0;
  int slot = 0;             // at the neighbour; of a proof: which endpoint
  std::uint64_t epoch = 0;  // or generation
  std::size_t bytes = 0;
  std::size_t from = 0;  // offsets, where there are bytes
  std::size_t into = 0;
  std::uint32_t place = 0;  // comes back when the write has ended
};

struct WireEvent {
  transport::Event::Kind kind = transport::Event::Kind::sent;
  std::uint32_t immediate = 0;        // arrived
  Channel channel = Channel::letter;  // sent, failed
  int neighbour = -1;                 // sent, failed; -1: the provider does not say whom it has lost
  std::uint32_t place = 0;            // sent, failed
  std::string reason{};               // failed
};

// How many writes to one neighbour may be under way at an endpoint that has room for `granted`, where `asked` would
// be enough for all that may be. Some providers end a write only when its receiver polls, or its socket takes more:
// where there is less room than was asked for, no neighbour may take what the others need. Throws Unsupported where
// there is not even room for one to each.
[[nodiscard]] std::size_t writes_to_one(transport::Capabilities const& granted, std::size_t asked,
                                        std::size_t neighbours);

class Wires {
 public:
  // Neighbours must outlive it, and so must the memory.
  Wires(BackEnd const& back_end, EndpointTerms const& terms, std::span<Neighbour const> neighbours,
        std::span<std::byte> memory);

  // What the others are to know, and what they say. Endpoints are as many as the rank with the fewest has.
  void put_card(MessageWriter& message) const;
  void connect(std::vector<MessageReader>& ranks);
  [[nodiscard]] int num_ends() const noexcept { return static_cast<int>(ends_.size()); }
  [[nodiscard]] std::size_t max_write_bytes() const;

  // Posts it, or keeps it until there is room: then poll() does. What is kept for a neighbour on a channel stays in
  // order. Never throws for what becomes of the write: an event says so.
  void post(Outgoing const& write);
  // The events since the last call, as far as they are looked for at once.
  void poll(std::vector<WireEvent>& events);

  // Writes so far, those that are kept among them.
  [[nodiscard]] std::uint64_t posted_to(int neighbour) const { return at(neighbour).posted; }
  // Neither `sent` nor failed yet, and of those, the ones that are not even posted.
  [[nodiscard]] std::size_t open(int neighbour, Channel channel) const {
    return at(neighbour).open[index(channel)];
  }
  [[nodiscard]] std::size_t kept(int neighbour) const { return at(neighbour).kept; }
  [[nodiscard]] std::size_t open(Channel channel) const { return open_[index(channel)]; }
  // Whether a write without bytes arrives once it is posted, whatever becomes of this rank.
  [[nodiscard]] bool posted_is_enough() const noexcept { return posted_is_enough_; }
  // By calls: what the making of a port writes does not count.
  [[nodiscard]] WireCount const& sent() const noexcept { return sent_; }

 private:
  struct End {
    std::unique_ptr<transport::Endpoint> endpoint;
    std::unique_ptr<transport::Region> region;  // goes before its endpoint
    std::vector<transport::Peer> peers;         // by neighbour
    std::vector<transport::PeerRegion> regions;
    std::array<std::deque<Outgoing>, num_channels> kept;
    std::size_t num_kept = 0;
    std::size_t under_way = 0;
    std::vector<std::size_t> under_way_to{};  // by neighbour
    std::size_t most_to_one = 0;
  };
  struct Counts {
    std::uint64_t posted = 0;
    std::size_t kept = 0;
    std::array<std::size_t, num_channels> open{};
  };
  enum class Tried : std::uint8_t { posted, busy, failed };

  static std::size_t index(Channel channel) { return static_cast<std::size_t>(channel); }
  [[nodiscard]] Counts const& at(int neighbour) const { return counts_[static_cast<std::size_t>(neighbour)]; }
  [[nodiscard]] std::size_t end_of(Outgoing const& write) const;
  [[nodiscard]] transport::Write write_of(End const& end, Outgoing const& outgoing) const;
  Tried attempt(End& end, Outgoing const& outgoing);
  void count(std::size_t bytes) noexcept;
  void keep(End& end, Outgoing const& outgoing);
  void post_kept(End& end);
  bool take_events(End& end, std::vector<WireEvent>& events);
  void note_failure(Outgoing const& outgoing, std::string reason);
  void close(Channel channel, int neighbour);
  [[nodiscard]] std::string reason_of(End const& end, transport::Peer peer) const;

  std::span<Neighbour const> neighbours_;
  bool posted_is_enough_;
  std::vector<End> ends_;
  std::vector<Counts> counts_;  // by neighbour
  std::array<std::size_t, num_channels> open_{};
  std::vector<WireEvent> failures_;  // of writes that could not be posted; not handed out yet
  WireCount sent_;
};

}  // namespace switchyard::scale_out
