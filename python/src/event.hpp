// Events, and what calls that are under way need of Python.
#pragma once

#include <nanobind/nanobind.h>

#include <deque>
#include <utility>
#include <vector>

#include "process.hpp"
#include "switchyard/stream.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// The Event that Python sees. In a fork nobody completes it, and a thread that is not there may hold its lock.
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

// Keeps the inputs of asynchronous calls until they are done. To be used with the GIL, so that no other thread ever
// has to take it to let go of them.
class InFlight {
 public:
  void add(Event event, std::vector<nb::object> inputs) {
    calls_.emplace_back(std::move(event), std::move(inputs));
  }
  // Lets go of what is done; calls end in their order. Says whether none is left.
  bool prune() {
    while (!calls_.empty() && calls_.front().first.done()) {
      auto const over = std::move(calls_.front());  // goes last: finalizers may make calls, which come here
      calls_.pop_front();
    }
    return calls_.empty();
  }

 private:
  std::deque<std::pair<Event, std::vector<nb::object>>> calls_;
};

void bind_event(nb::module_& module);

}  // namespace switchyard::python
