#include "scale_out/wires.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.hpp"
#include "scale_out/proofs.hpp"

namespace switchyard::scale_out {

namespace {

using transport::Endpoint;
using transport::Event;
using transport::Opaque;

// The context of a write says what it is when it comes back.
constexpr int channel_shift = 56;
constexpr int neighbour_shift = 32;
constexpr std::uint64_t neighbour_mask = (std::uint64_t{1} << (channel_shift - neighbour_shift)) - 1;

constexpr std::uint64_t context_of(Outgoing const& write) {
  return static_cast<std::uint64_t>(write.channel) << channel_shift |
         static_cast<std::uint64_t>(write.neighbour) << neighbour_shift | write.place;
}

// What is first here is posted first: a letter opens a call for its receiver, and a credit makes room for others.
constexpr std::array by_urgency{Channel::proof,        Channel::letter, Channel::credit,  Channel::chunk,
                                Channel::notice_taken, Channel::notice, Channel::farewell};
static_assert(by_urgency.size() == num_channels);

// Said to neighbours that may be between calls.
constexpr bool is_word(Channel channel) {
  return channel != Channel::letter && channel != Channel::chunk && channel != Channel::proof;
}

Opaque opaque_in(MessageReader& message) {
  auto const bytes = message.get_bytes();
  return {bytes.begin(), bytes.end()};
}

}  // namespace

WriteRoom write_room(transport::Capabilities const& granted, std::size_t asked, std::size_t neighbours) {
  std::size_t const all = granted.max_writes;
  if (all >= asked) return {.in_all = all, .to_one = all, .of_words = all};
  if (all >= neighbours) return {.in_all = all, .to_one = all / neighbours, .of_words = all};
  return {.in_all = all, .to_one = 1, .of_words = std::max<std::size_t>(1, all / 2), .in_turns = true};
}

Wires::Wires(BackEnd const& back_end, EndpointTerms const& terms, std::span<Neighbour const> neighbours,
             std::span<std::byte> memory)
    : neighbours_(neighbours),
      posted_is_enough_(back_end.loopback && back_end.faults == 0),
      counts_(neighbours.size()) {
  for (auto& endpoint : open_endpoints(back_end, terms)) {
    End& end = ends_.emplace_back();
    end.endpoint = std::move(endpoint);
    end.region = end.endpoint->register_memory(memory);
    end.under_way_to.assign(neighbours.size(), 0);
    end.room = write_room(end.endpoint->capabilities(), terms.max_writes, neighbours.size());
  }
}

void Wires::put_card(MessageWriter& message) const {
  message.put(static_cast<std::uint32_t>(ends_.size()));
  for (End const& end : ends_) {
    message.put_bytes(end.endpoint->address());
    message.put_bytes(end.region->key());
  }
}

void Wires::connect(std::vector<MessageReader>& ranks) {
  std::vector<std::uint32_t> counts;
  for (MessageReader& rank : ranks) counts.push_back(rank.get<std::uint32_t>());
  auto const fewest = std::min<std::size_t>(*std::ranges::min_element(counts), most_proofs);
  require(fewest >= 1 && fewest <= ends_.size(), "endpoints of a rank: expected 1..{}, seen {}", ends_.size(),
          fewest);
  while (ends_.size() > fewest) ends_.pop_back();
  for (Neighbour const& neighbour : neighbours_) {
    MessageReader& card = ranks.at(static_cast<std::size_t>(neighbour.member.rank));
    for (End& end : ends_) {
      end.peers.push_back(end.endpoint->add_peer(opaque_in(card), neighbour.member.text()));
      end.regions.push_back(end.endpoint->add_region(end.peers.back(), opaque_in(card)));
    }
  }
}

std::size_t Wires::max_write_bytes() const {
  std::size_t most = ends_.front().endpoint->capabilities().max_write_bytes;
  for (End const& end : ends_) most = std::min(most, end.endpoint->capabilities().max_write_bytes);
  return most;
}

// Both ends of a slot find the same endpoint, so that its chunks and its credits share the NICs evenly.
std::size_t Wires::end_of(Outgoing const& write) const {
  bool const of_a_slot =
      write.channel == Channel::chunk || write.channel == Channel::credit || write.channel == Channel::proof;
  return static_cast<std::size_t>(of_a_slot ? write.slot : write.neighbour) % ends_.size();
}

transport::Write Wires::write_of(End const& end, Outgoing const& outgoing) const {
  auto const neighbour = static_cast<std::size_t>(outgoing.neighbour);
  transport::Tag const tag{.channel = static_cast<int>(outgoing.channel),
                           .source = neighbours_[neighbour].number_there,
                           .slot = outgoing.slot,
                           .epoch = outgoing.epoch};
  return {.to = end.peers[neighbour],
          .from = outgoing.bytes > 0 ? end.region.get() : nullptr,
          .from_offset = outgoing.from,
          .into = end.regions[neighbour],
          .into_offset = outgoing.into,
          .bytes = outgoing.bytes,
          .immediate = transport::immediate_of(tag),
          .context = context_of(outgoing)};
}

// Whether there is room for any write on the channel, whomever it is to.
bool Wires::has_room(End const& end, Channel channel) {
  return end.under_way < end.room.in_all && (!is_word(channel) || end.words_under_way < end.room.of_words);
}

Wires::Tried Wires::attempt(End& end, Outgoing const& outgoing) {
  std::size_t const to_it = end.under_way_to[static_cast<std::size_t>(outgoing.neighbour)];
  if (!has_room(end, outgoing.channel) || to_it >= end.room.to_one) return Tried::busy;
  try {
    if (end.endpoint->post(write_of(end, outgoing)) == Endpoint::Posted::busy) return Tried::busy;
  } catch (Error const& error) {
    note_failure(outgoing, error.what());
    return Tried::failed;
  }
  count(end, outgoing);
  return Tried::posted;
}

void Wires::count(End& end, Outgoing const& posted) {
  ++end.under_way;
  ++end.under_way_to[static_cast<std::size_t>(posted.neighbour)];
  if (is_word(posted.channel)) ++end.words_under_way;
  if (posted.channel == Channel::proof) return;  // the making of a port does not count
  ++sent_.writes;
  sent_.bytes += posted.bytes;
  auto const size = std::max(1, static_cast<int>(std::bit_width(posted.bytes))) - 1;
  auto const at = std::min(static_cast<std::size_t>(size), sent_.writes_by_size.size() - 1);
  ++sent_.writes_by_size[at];
  sent_.bytes_by_size[at] += posted.bytes;
}

void Wires::note_failure(Outgoing const& outgoing, std::string reason) {
  failures_.push_back({.kind = Event::Kind::failed,
                       .of_a_write = true,
                       .channel = outgoing.channel,
                       .neighbour = outgoing.neighbour,
                       .place = outgoing.place,
                       .reason = std::move(reason)});
}

void Wires::post(Outgoing const& write) {
  Counts& counts = counts_[static_cast<std::size_t>(write.neighbour)];
  ++counts.posted;
  ++counts.open[index(write.channel)];
  ++open_[index(write.channel)];
  End& end = ends_[end_of(write)];
  bool const others_wait = (counts.kept > 0 || end.room.in_turns) && !end.kept[index(write.channel)].empty();
  if (others_wait || attempt(end, write) == Tried::busy) keep(end, write);
}

void Wires::keep(End& end, Outgoing const& outgoing) {
  end.kept[index(outgoing.channel)].push_back(outgoing);
  ++end.num_kept;
  ++counts_[static_cast<std::size_t>(outgoing.neighbour)].kept;
}

// A neighbour that cannot be reached, or is not yet connected, holds up nobody else.
void Wires::post_kept(End& end) {
  if (end.num_kept == 0) return;
  std::vector<bool> busy(neighbours_.size(), false);
  for (Channel const channel : by_urgency) {
    auto& kept = end.kept[index(channel)];
    if (!has_room(end, channel)) continue;  // which is not to say that its neighbours are busy
    std::erase_if(kept, [&](Outgoing const& outgoing) {
      auto const neighbour = static_cast<std::size_t>(outgoing.neighbour);
      if (busy[neighbour] || !has_room(end, channel)) return false;
      busy[neighbour] = attempt(end, outgoing) == Tried::busy;
      if (busy[neighbour]) return false;
      --end.num_kept;
      --counts_[neighbour].kept;
      return true;
    });
  }
}

void Wires::poll(std::vector<WireEvent>& events) {
  constexpr int rounds = 4;  // neighbours may write faster than this rank polls
  for (End& end : ends_) {
    post_kept(end);
    for (int round = 0; round < rounds; ++round)
      if (!take_events(end, events)) break;
    post_kept(end);
  }
  for (WireEvent& failure : failures_) {
    close(failure.channel, failure.neighbour);
    events.push_back(std::move(failure));
  }
  failures_.clear();
}

// False: no more are there.
bool Wires::take_events(End& end, std::vector<WireEvent>& events) {
  std::array<Event, 32> found;
  std::size_t const count = end.endpoint->poll(found);
  for (Event const& event : std::span(found).first(count)) {
    WireEvent& taken = events.emplace_back();
    taken.kind = event.kind;
    taken.immediate = event.immediate;
    if (event.kind == Event::Kind::failed) taken.reason = reason_of(end, event.peer);
    if (event.kind == Event::Kind::arrived || event.context == Event::no_context) {
      auto const named = std::ranges::find(end.peers, event.peer);
      if (named != end.peers.end()) taken.neighbour = static_cast<int>(named - end.peers.begin());
      continue;
    }
    taken.of_a_write = true;
    taken.channel = static_cast<Channel>(event.context >> channel_shift);
    taken.neighbour = static_cast<int>(event.context >> neighbour_shift & neighbour_mask);
    taken.place = static_cast<std::uint32_t>(event.context);
    --end.under_way;
    --end.under_way_to[static_cast<std::size_t>(taken.neighbour)];
    if (is_word(taken.channel)) --end.words_under_way;
    close(taken.channel, taken.neighbour);
  }
  return count == found.size();
}

void Wires::close(Channel channel, int neighbour) {
  --counts_[static_cast<std::size_t>(neighbour)].open[index(channel)];
  --open_[index(channel)];
}

std::string Wires::reason_of(End const& end, transport::Peer peer) const {
  try {
    return end.endpoint->reason(peer);
  } catch (InvalidArgument const&) {
    return "a neighbour, which the transport does not name";  // a back end that has no words for that
  }
}

}  // namespace switchyard::scale_out
