// Events, and the Python objects that calls under way use.
#pragma once

#include <nanobind/nanobind.h>

#include <deque>
#include <utility>
#include <vector>

#include "process.hpp"
#include "switchyard/stream.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// The Event that Python sees. In a fork nobody completes it, and a thread that does not exist there may hold its
// lock.
class PyEvent {
 public:
  PyEvent() = default;
  explicit PyEvent(Event event) : event_(std::move(event)) {}

  // Throws Unusable in a fork.
  [[nodiscard]] Event const& get() const {
    if (event_.state() && forks() != forks_) throw forked("Event", "the process before the fork");
    return event_;
  }

 private:
  unsigned forks_ = forks();
  Event event_;
};

// Keeps the inputs of asynchronous calls until the calls are done. All methods need the GIL: releasing a Python
// object needs it, and threads of the engine never take it.
class InFlight {
 public:
  void add(Event event, std::vector<nb::object> inputs) {
    calls_.emplace_back(std::move(event), std::move(inputs));
  }
  // Releases the inputs of calls that are done; calls end in their order. Returns whether no call is left.
  bool prune() {
    while (!calls_.empty() && calls_.front().first.done()) {
      // Destroyed after pop_front(): finalizers of inputs may make calls, which prune again.
      auto const over = std::move(calls_.front());
      calls_.pop_front();
    }
    return calls_.empty();
  }

 private:
  std::deque<std::pair<Event, std::vector<nb::object>>> calls_;
};

void bind_event(nb::module_& module);

}  // namespace switchyard::python
