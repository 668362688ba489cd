// What comes to a port. All of it is from outside, and is checked.
#include <algorithm>

#include "base/check.hpp"
#include "base/log.hpp"
#include "scale_out/state.hpp"

namespace switchyard::scale_out {

namespace {

using transport::Arrivals;
using transport::Event;
using transport::Tag;

bool is_of_a_call(int channel) {
  return channel == static_cast<int>(Channel::letter) || channel == static_cast<int>(Channel::chunk);
}

}  // namespace

// All events are taken, whatever one of them shows: drain() relies on the counts.
bool Port::State::take_events() {
  events_.clear();
  try {
    wires_->poll(events_);
  } catch (Error const& error) {
    note(error);
  }
  for (WireEvent const& event : events_) {
    try {
      if (event.kind == Event::Kind::arrived) take_arrival(event.immediate);
      if (event.kind == Event::Kind::sent) take_end(event);
      if (event.kind == Event::Kind::failed) take_failure(event);
    } catch (Error const& error) {
      note(error);
    }
  }
  return !events_.empty();
}

void Port::State::note(Error const& error) {
  if (!error_) error_ = error;
}

void Port::State::take_end(WireEvent const& event) {
  With& one = with(event.neighbour);
  switch (event.channel) {
    case Channel::letter: one.letter_under_way.at(event.place) = false; return;
    case Channel::chunk:
      send_slots_.at(event.place).is = SendSlot::Is::free;
      free_send_slots_.push_back(static_cast<int>(event.place));
      return;
    case Channel::notice: one.notices_out.at(event.place).under_way = false; return;
    case Channel::credit:
    case Channel::notice_taken:
    case Channel::proof:
    case Channel::farewell: return;
  }
}

// A write to nobody that can be named shows that some connection has ended, half way. Whose it was, and whether
// anybody waits for more of it, is for is_lost() and deadlines to say.
void Port::State::take_failure(WireEvent const& event) {
  if (event.neighbour < 0) {
    logger().debug("port: rank {}: a connection has failed: {}", job_->rank(), event.reason);
    return;
  }
  if (event.of_a_write) take_end(event);
  With& one = with(event.neighbour);
  if (one.broken.empty()) one.broken = event.reason;
  // Who has left needs no notices, and that it has left is no failure of this call.
  bool const is_awaited = !event.of_a_write || is_of_a_call(static_cast<int>(event.channel)) ||
                          event.channel == Channel::credit || event.channel == Channel::proof;
  if (!is_awaited || one.given_up) return;
  int const peer = members_[checked(event.neighbour)].rank;
  bool const first = event.of_a_write && event.channel == Channel::proof;
  char const* const hint =
      first ? "; is there a firewall between the nodes, or is the address of its NIC one that leads "
              "elsewhere (SWITCHYARD_ADDRESS, docs/cluster.md)?"
            : "";
  note(PeerLost(event.reason + hint, {.rank = job_->rank(), .peer = peer}));
}

void Port::State::expect(bool holds, int neighbour, std::string_view expected, std::string_view seen) {
  if (holds) return;
  Member const& member = members_[checked(neighbour)];
  throw SystemError(fmt::format("{}: expected {}, seen {}", member.text(), expected, seen),
                    {.rank = job_->rank(), .peer = member.rank});
}

void Port::State::take_arrival(std::uint32_t immediate) {
  Tag const tag = transport::tag_of(immediate);
  if (tag.source >= num_neighbours()) {
    throw SystemError(
        fmt::format("source of an arrival: expected 0 to below {}, seen {}", num_neighbours(), tag.source),
        {.rank = job_->rank()});
  }
  With& one = with(tag.source);
  ++one.arrived;
  if (draining_) return;
  if (is_of_a_call(tag.channel)) {
    auto const taken = arrivals_->take(immediate);
    return static_cast<Channel>(tag.channel) == Channel::letter ? take_letter(taken) : take_chunk(taken);
  }
  expect(tag.channel < num_channels, tag.source, "a write of a kind that there is", "another");
  if (static_cast<Channel>(tag.channel) == Channel::proof) return take_proof(tag);
  if (static_cast<Channel>(tag.channel) == Channel::credit) {
    expect(one.there.free(tag.slot, tag.epoch), tag.source, "a credit for a slot that is out", "one for another");
    return;
  }
  if (static_cast<Channel>(tag.channel) == Channel::farewell) {
    expect(!one.has_ended, tag.source, "one farewell", "another");
    one.has_ended = true;
    return;
  }
  expect(tag.slot < notice_places, tag.source, "a place that notices have", "another");
  if (static_cast<Channel>(tag.channel) == Channel::notice) return take_notice(tag);
  auto& untaken = one.notices_out[static_cast<std::size_t>(tag.slot)].untaken;
  expect(untaken, tag.source, "a notice taken that was said", "one that was not");
  untaken = false;
}

// Of a later epoch: begin() comes back to it.
void Port::State::take_letter(Arrivals::Taken const& taken) {
  if (taken.when != Arrivals::When::current) return;
  With& one = with(taken.tag.source);
  expect(!one.letter_here && taken.tag.slot == letter_place(), taken.tag.source, "one letter in each call",
         "another");
  one.letter_here = true;
}

void Port::State::take_chunk(Arrivals::Taken const& taken) {
  int const neighbour = taken.tag.source;
  int const slot = taken.tag.slot;
  With& one = with(neighbour);
  expect(one.here.fill(slot, taken.tag.epoch), neighbour, "chunks in slots that this rank has given back",
         "one in another");
  if (taken.when == Arrivals::When::current) one.chunks.push_back(slot);
  if (taken.when != Arrivals::When::late) return;
  one.here.hand_out(slot);  // to nobody
  give_back_slot(neighbour, slot);
}

void Port::State::take_proof(Tag const& tag) {
  bool taken = false;
  if (tag.slot < wires_->num_ends()) {
    ProofPlace const at = proof_place_of(tag.slot);
    ByteView const place = memory(layout_->notice_in(tag.source, at.notice));
    taken = proofs_->take(tag.source, tag.slot, place.subspan(at.offset, sizeof(Mac)));
  }
  expect(taken, tag.source, "one proof that this is it from each of its data endpoints",
         "another; is another process at its address (SWITCHYARD_ADDRESS, docs/cluster.md)?");
}

void Port::State::take_notice(Tag const& tag) {
  auto& here = with(tag.source).notices_here[static_cast<std::size_t>(tag.slot)];
  expect(!here, tag.source, "notices in places that this rank has read", "one in another");
  here = true;
  notices_.push_back({.neighbour = tag.source, .place = tag.slot});
  if (tag.slot == notice_places - 1) failed_ = true;
}

}  // namespace switchyard::scale_out
