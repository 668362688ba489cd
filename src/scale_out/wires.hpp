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
  bool of_a_write = false;            // sent, failed: of one that is named here; otherwise the neighbour is lost
  Channel channel = Channel::letter;  // of that write
  int neighbour = -1;                 // sent, failed; -1: the provider does not say whom it has lost
  std::uint32_t place = 0;            // of that write
  std::string reason{};               // failed
};

// How many writes may be under way at an endpoint that has room for `granted`, where `asked` would be enough for
// all that may be. Some providers end a write only when its receiver polls, or its socket takes more: where there
// is less room than was asked for, no neighbour may take what the others need.
//
// With room for a write to each neighbour or more, each has a share of its own, so none holds up another. With less
// room all take turns, one write to each at a time, in the order in which they were asked for. A neighbour that
// takes nothing then keeps one place, and only as many of them as there are places would hold up the others:
//
// - A neighbour between calls does not poll. Only words may still be under way to it (credits, notices, farewells),
//   which no call waits for. All words together have half of the room (of 2 or more), so letters and chunks pass.
// - Letters, chunks and proofs go to neighbours that are in the same call, or come to it. Nobody keeps them from
//   coming: who is still in the call before needs nothing of this rank but words on their way. So these places
//   become free again.
// - Words could hold up a neighbour that waits for a credit, where others that do not poll have taken their half.
//   Over TCP, where room is that short, they do not stay: they have few bytes or none, and the neighbour has read
//   what came before them, so its socket takes them.
// - A neighbour that is stopped, or whose machine is silent, keeps its place until its connection ends. When half
//   of the room is taken so (128 neighbours, over TCP), the deadline of the call ends it, and names who has not
//   come.
struct WriteRoom {
  std::size_t in_all = 0;
  std::size_t to_one = 0;    // neighbour
  std::size_t of_words = 0;  // to all neighbours together
  bool in_turns = false;     // there is no room for a write to each
};
[[nodiscard]] WriteRoom write_room(transport::Capabilities const& granted, std::size_t asked,
                                   std::size_t neighbours);

class Wires {
 public:
  // Neighbours must outlive it, and so must the memory.
  Wires(BackEnd const& back_end, EndpointTerms const& terms, std::span<Neighbour const> neighbours,
        std::span<std::byte> memory);

  // What the others are to know, and what they say. Endpoints are as many as the rank with the fewest has, and no
  // more than prove who they are.
  void put_card(MessageWriter& message) const;
  void connect(std::vector<MessageReader>& ranks);
  [[nodiscard]] int num_ends() const noexcept { return static_cast<int>(ends_.size()); }
  [[nodiscard]] std::size_t max_write_bytes() const;

  // Posts it, or keeps it until there is room: then poll() does. What is kept for a neighbour on a channel stays in
  // order; where neighbours take turns, so does what is kept for all of them. Never throws for what becomes of the
  // write: an event says so.
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
    std::size_t words_under_way = 0;
    std::vector<std::size_t> under_way_to{};  // by neighbour
    WriteRoom room{};
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
  [[nodiscard]] static bool has_room(End const& end, Channel channel);
  Tried attempt(End& end, Outgoing const& outgoing);
  void count(End& end, Outgoing const& posted);
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
