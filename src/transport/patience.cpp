#include "transport/patience.hpp"

#include <fmt/core.h>

#include <array>
#include <thread>

#include "base/interrupt.hpp"

namespace switchyard::transport {
namespace {

// What the caller of an interrupt check does may cost more than a poll.
constexpr int polls_per_interrupt_check = 256;

// The rounds of a wait, between polls.
class Rounds {
 public:
  Rounds(Patience const& patience, std::string_view what) : patience_(patience), what_(what) {}

  // After a poll in which nothing came: others may need the core. A stream of events must not put off the deadline.
  void next(bool anything) {
    if (patience_.deadline.expired()) {
      throw Timeout(fmt::format("{}: expected {} in time, seen none", patience_.peer, what_), patience_.facts);
    }
    if (anything) return;
    if (++idle_ % polls_per_interrupt_check == 0 && interrupted()) {
      throw SystemError(fmt::format("{}: interrupted by the caller while it waited for {}", patience_.peer, what_),
                        patience_.facts);
    }
    std::this_thread::yield();
  }

 private:
  Patience const& patience_;
  std::string_view what_;
  int idle_ = 0;
};

}  // namespace

bool poll_once(Endpoint& endpoint, EventHandler const& handler) {
  std::array<Event, 32> events;
  std::size_t const count = endpoint.poll(events);
  for (Event const& event : std::span(events).first(count)) handler(event);
  return count > 0;
}

void post_by(Endpoint& endpoint, Write const& write, Patience const& patience, EventHandler const& handler) {
  Rounds rounds(patience, "room for a write");
  while (endpoint.post(write) == Endpoint::Posted::busy) rounds.next(poll_once(endpoint, handler));
}

void poll_until(Endpoint& endpoint, std::function<bool()> const& done, std::string_view what,
                Patience const& patience, EventHandler const& handler) {
  Rounds rounds(patience, what);
  while (!done()) rounds.next(poll_once(endpoint, handler));
}

}  // namespace switchyard::transport
