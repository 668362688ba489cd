#include "waiting.hpp"

#include <algorithm>

namespace switchyard::python {

namespace {

using Clock = std::chrono::steady_clock;

thread_local Clock::time_point last_look;

// A wait that is woken often does not take the GIL as often.
bool signal_raised() noexcept {
  if (Clock::now() - last_look < slice) return false;
  last_look = Clock::now();
  nb::gil_scoped_acquire const acquired;
  return PyErr_CheckSignals() != 0;
}

}  // namespace

bool in_main_thread() noexcept {
  static unsigned long const main =
      nb::cast<unsigned long>(nb::module_::import_("threading").attr("main_thread")().attr("ident"));
  return PyThread_get_thread_ident() == main;
}

SignalScope::SignalScope() : scope_(&signal_raised) {
  last_look = Clock::now();
}

bool wait_for(Event const& event, std::optional<std::chrono::milliseconds> timeout) {
  auto const end = timeout ? Clock::now() + *timeout : Clock::time_point::max();
  for (;;) {
    bool done = false;
    {
      nb::gil_scoped_release const released;
      auto const left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
      done = event.wait_for(std::clamp(left, std::chrono::milliseconds{0}, slice));
    }
    if (done) return true;
    check_signals();
    if (Clock::now() >= end) return false;
  }
}

}  // namespace switchyard::python
