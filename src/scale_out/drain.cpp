// How a port comes to rest: in a reset, and at its end.
#include <algorithm>
#include <exception>

#include "base/check.hpp"
#include "base/interrupt.hpp"
#include "base/log.hpp"
#include "scale_out/cards.hpp"
#include "scale_out/rest.hpp"
#include "scale_out/state.hpp"

namespace switchyard::scale_out {

namespace {

// How long a port's end waits for neighbours at most. They are in the last call, or slow; who is stuck has its own
// deadline.
constexpr std::chrono::milliseconds patience_at_the_end{5000};
// And for words to leave, which a transport that learns it from the neighbour may never tell: it may be gone, or
// between calls. A farewell that has not left by then is lost, and its neighbour waits out its own patience.
constexpr std::chrono::milliseconds patience_for_words{100};

}  // namespace

// Why nothing is left afterwards: no rank posts anything new from here on, so each knows how many writes it has
// made for each neighbour since the ports were made, and tells it. Writes arrive once each. So when as many have
// come as were made, none is under way to this rank; and when its own have all ended, none starts from its memory.
// What has come by then was either taken before, or is only counted; both sides forget all slots at the same point,
// and the agreement that follows keeps new calls away from ranks that are not there yet.
//
// The exchange does not wait for writes to end first: that may need a neighbour to poll, which the exchange does
// not.
void Port::State::drain(std::uint64_t epoch) {
  require(epoch >= epoch_, "epoch: expected at least {}, seen {}", epoch_, epoch);
  draining_ = true;
  auto const expected = exchange_counts();
  Deadline const deadline(job_->timeout());
  Rest rest;
  while (auto const neighbour = first_open(expected)) {
    if (take_events()) continue;
    check_wait({.phase = "drain", .expected = "all writes in time"}, *neighbour, deadline);
    rest.turn();
  }
  forget_calls(epoch);
  draining_ = false;
}

// By neighbour, how many writes it has made for this rank.
std::vector<std::uint64_t> Port::State::exchange_counts() {
  auto cards = exchange_cards(*job_, [&](MessageWriter& message) {
    for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) message.put(wires_->posted_to(neighbour));
  });
  std::vector<std::uint64_t> counts;
  for (Neighbour const& neighbour : neighbours_) {
    MessageReader& reader = cards.readers.at(static_cast<std::size_t>(neighbour.member.rank));
    for (int skipped = 0; skipped < neighbour.number_there; ++skipped)
      static_cast<void>(reader.get<std::uint64_t>());
    counts.push_back(reader.get<std::uint64_t>());
  }
  return counts;
}

// The first neighbour to or from which anything is under way. More than expected may have come: a farewell of one
// whose drain has ended, and whose reset has failed then.
std::optional<int> Port::State::first_open(std::vector<std::uint64_t> const& expected) const {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    std::uint64_t const arrived = with(neighbour).arrived;
    if (arrived < expected[static_cast<std::size_t>(neighbour)]) return neighbour;
    for (int channel = 0; channel < num_channels; ++channel)
      if (wires_->open(neighbour, static_cast<Channel>(channel)) > 0) return neighbour;
  }
  return std::nullopt;
}

void Port::State::check_wait(Wait const& wait, int neighbour, Deadline const& deadline) const {
  std::string const name = members_[checked(neighbour)].text();
  ErrorFacts const facts{.rank = job_->rank(), .peer = members_[checked(neighbour)].rank, .phase = wait.phase};
  std::string const& broken = with(neighbour).broken;
  if (!broken.empty()) throw PeerLost(fmt::format("{}: {}", wait.phase, broken), facts);
  if (is_lost(neighbour)) throw PeerLost(fmt::format("{}: {} has left the job or died", wait.phase, name), facts);
  if (deadline.expired())
    throw Timeout(fmt::format("{}: {}: expected {}{}{}", wait.phase, name, wait.expected,
                              job_->silence_text(facts.peer), wait.hint),
                  facts);
  if (interrupted())
    throw SystemError(fmt::format("{}: interrupted while it waited for {}", wait.phase, name), facts);
}

// Whether the neighbour, which is still there, has yet to take what this rank has sent it, or a credit that it may
// wait for has not left.
bool Port::State::needs(int neighbour) const {
  With const& one = with(neighbour);
  if (is_gone(neighbour) || one.has_ended) return false;
  if (one.there.num_out() > 0 || wires_->kept(neighbour) > 0) return true;
  if (wires_->open(neighbour, Channel::letter) + wires_->open(neighbour, Channel::chunk) > 0) return true;
  return !wires_->posted_is_enough() && wires_->open(neighbour, Channel::credit) > 0;
}

// Whether words to the neighbour have not left that let it go at once.
bool Port::State::has_words_for(int neighbour) const {
  if (is_gone(neighbour) || wires_->posted_is_enough()) return false;
  return wires_->open(neighbour, Channel::credit) + wires_->open(neighbour, Channel::farewell) > 0;
}

void Port::State::give_back_all() {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    for (int const slot : with(neighbour).here.full()) {
      with(neighbour).here.hand_out(slot);
      give_back_slot(neighbour, slot);
    }
  }
}

// Whether this rank knows of a failure. That a write to a port that has ended fails is none.
bool Port::State::knows_of_failure() const {
  if (failed_ || !error_) return failed_;
  int const neighbour = number_of(error_->peer());
  return neighbour < 0 || !with(neighbour).has_ended;
}

// To those that it has given up, too, which may not have given it up.
void Port::State::say_farewell() {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    if (!is_lost(neighbour) && with(neighbour).broken.empty())
      wires_->post({.channel = Channel::farewell, .neighbour = neighbour});
  }
}

void Port::State::warn_of_untaken(int neighbour, std::chrono::milliseconds waited) const {
  Member const& member = members_[checked(neighbour)];
  logger().warn(
      "port: rank {}: expected {} to take what it was sent, seen {} chunks not taken after {} ms: they may be lost",
      job_->rank(), member.text(), with(neighbour).there.num_out(), waited.count());
}

// A rank that has ended its last call may leave while others are still in it: what it has sent them lies in a
// socket that is cut when its end closes with something unread, and the last chunk with it. So it stays until its
// slots are free, which a neighbour's credits say, or until the neighbour has said farewell: it takes nothing more,
// and may have gone with chunks that it never needed (in the low-latency mode, from a rank that it had masked), for
// which no credit comes. Who has failed, or knows of a failure, waits for nothing.
void Port::State::leave() noexcept {
  try {
    if (draining_) return;
    take_events();
    give_back_all();  // neighbours in a call may wait for slots
    say_farewell();
    auto const patience = std::min(job_->timeout(), patience_at_the_end);
    Deadline const deadline(patience);
    Deadline const words(std::min(job_->timeout(), patience_for_words));
    auto const waits_for = [&]() -> std::optional<int> {
      for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour)
        if (needs(neighbour) || (!words.expired() && has_words_for(neighbour))) return neighbour;
      return std::nullopt;
    };
    Rest rest;
    while (!knows_of_failure() && std::uncaught_exceptions() == 0) {
      auto const neighbour = waits_for();
      if (!neighbour || interrupted()) return;
      if (deadline.expired()) return warn_of_untaken(*neighbour, patience);
      if (!take_events()) rest.turn();
      give_back_all();
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): it goes all the same
  }
}

}  // namespace switchyard::scale_out
