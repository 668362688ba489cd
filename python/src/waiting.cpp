#include "waiting.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace switchyard::python {

namespace {

using Clock = std::chrono::steady_clock;

thread_local Clock::time_point last_look;

unsigned long main_thread = 0;  // written when the module is made, before any other thread can call it

// Takes the GIL once a slice at most, since a wait may be woken much more often.
bool signal_raised() noexcept {
  if (Clock::now() - last_look < slice) return false;
  last_look = Clock::now();
  nb::gil_scoped_acquire const acquired;
  return PyErr_CheckSignals() != 0;
}

}  // namespace

void remember_main_thread() {
  main_thread = nb::cast<unsigned long>(nb::module_::import_("threading").attr("main_thread")().attr("ident"));
}

bool in_main_thread() noexcept {
  return PyThread_get_thread_ident() == main_thread;
}

std::chrono::milliseconds milliseconds(char const* name, double seconds) {
  if (std::isnan(seconds)) throw InvalidArgument(std::string(name) + ": expected seconds, seen nan");
  constexpr double longest = 1e9;  // 31 years, whose sum with a clock does not overflow
  return std::chrono::ceil<std::chrono::milliseconds>(
      std::chrono::duration<double>(std::clamp(seconds, -longest, longest)));
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
