// Bounded waits on an endpoint. Whoever waits keeps polling, since peers need that to get on; what happens
// meanwhile goes to the caller's handler.
#pragma once

#include <functional>
#include <string>

#include "base/deadline.hpp"
#include "switchyard/error.hpp"
#include "transport/transport.hpp"

namespace switchyard::transport {

// Who is waited for, for what, and how long: what the error says.
struct Patience {
  Deadline deadline;
  std::string peer{};  // such as "rank 5 on node 1"
  ErrorFacts facts{};
};

// Must not wait on the endpoint itself. What it throws ends the wait.
using EventHandler = std::function<void(Event const&)>;

// Posts the write. While the endpoint is busy it polls. Throws Timeout, naming the peer, at the deadline;
// SystemError when the caller's call is interrupted; and what post() and poll() throw.
void post_by(Endpoint& endpoint, Write const& write, Patience const& patience, EventHandler const& handler);

// Polls until `done`, which is asked before each poll; `what` says in the error what did not come.
void poll_until(Endpoint& endpoint, std::function<bool()> const& done, std::string_view what,
                Patience const& patience, EventHandler const& handler);

// Polls once. Returns whether anything came.
bool poll_once(Endpoint& endpoint, EventHandler const& handler);

}  // namespace switchyard::transport
