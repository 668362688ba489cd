// How a port comes to rest: in a reset, and at its end.
#include <exception>
#include <thread>

#include "base/check.hpp"
#include "base/interrupt.hpp"
#include "scale_out/cards.hpp"
#include "scale_out/state.hpp"

namespace switchyard::scale_out {

namespace {

// How long a port's end waits for neighbours at most. They are in the last call, or slow; who is stuck has its own
// deadline.
constexpr std::chrono::milliseconds patience_at_the_end{5000};

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
  while (auto const neighbour = first_open(expected)) {
    if (take_events()) continue;
    check_wait(*neighbour, deadline);
    std::this_thread::yield();
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

// The first neighbour to or from which anything is under way.
std::optional<int> Port::State::first_open(std::vector<std::uint64_t> const& expected) const {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    std::uint64_t const arrived = with(neighbour).arrived;
    if (arrived != expected[static_cast<std::size_t>(neighbour)]) return neighbour;
    for (int channel = 0; channel < num_channels; ++channel)
      if (wires_->open(neighbour, static_cast<Channel>(channel)) > 0) return neighbour;
  }
  return std::nullopt;
}

void Port::State::check_wait(int neighbour, Deadline const& deadline) const {
  std::string const name = members_[checked(neighbour)].text();
  ErrorFacts const facts{.rank = job_->rank(), .peer = members_[checked(neighbour)].rank, .phase = "drain"};
  std::string const& broken = with(neighbour).broken;
  if (!broken.empty()) throw PeerLost(fmt::format("drain: {}", broken), facts);
  if (is_lost(neighbour)) throw PeerLost(fmt::format("drain: {} has left the job or died", name), facts);
  if (deadline.expired()) throw Timeout(fmt::format("drain: {}: expected all writes in time", name), facts);
  if (interrupted()) throw SystemError(fmt::format("drain: interrupted while it waited for {}", name), facts);
}

// Whether the neighbour has yet to take what this rank has sent it, or a credit that it may wait for has not left.
bool Port::State::needs(int neighbour) const {
  if (is_lost(neighbour) || given_up(neighbour) || !with(neighbour).broken.empty()) return false;
  if (with(neighbour).there.num_out() > 0) return true;
  if (wires_->open(neighbour, Channel::letter) + wires_->open(neighbour, Channel::chunk) > 0) return true;
  if (wires_->kept(neighbour) > 0) return true;
  return !wires_->posted_is_enough() && wires_->open(neighbour, Channel::credit) > 0;
}

void Port::State::give_back_all() {
  for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour) {
    for (int const slot : with(neighbour).here.full()) {
      with(neighbour).here.hand_out(slot);
      give_back_slot(neighbour, slot);
    }
  }
}

// A rank that has ended its last call may leave while others are still in it: what it has sent them lies in a
// socket that is cut when its end closes with something unread, and the last chunk with it. So it stays until its
// slots are free: a neighbour frees them when it has their chunks, and what it sends after that (notices) nobody
// needs. There is nothing to exchange: neighbours do that anyway, and who has failed, or knows of a failure,
// waits for nothing.
void Port::State::leave() noexcept {
  try {
    if (draining_) return;
    give_back_all();  // so that neighbours do not wait for it
    Deadline const deadline(std::min(job_->timeout(), patience_at_the_end));
    auto const anybody = [&] {
      for (int neighbour = 0; neighbour < num_neighbours(); ++neighbour)
        if (needs(neighbour)) return true;
      return false;
    };
    while (!failed_ && !error_ && std::uncaught_exceptions() == 0 && anybody()) {
      if (deadline.expired() || interrupted()) return;
      if (!take_events()) std::this_thread::yield();
    }
  } catch (...) {  // NOLINT(bugprone-empty-catch): it goes all the same
  }
}

}  // namespace switchyard::scale_out
