// Blocking calls. They release the GIL, and an exception of a signal handler (KeyboardInterrupt) ends them.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <exception>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include "switchyard/error.hpp"
#include "switchyard/interrupt.hpp"
#include "switchyard/stream.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// The longest time from a signal to Python's handler.
inline constexpr std::chrono::milliseconds slice{50};

// Throws the exception of a signal handler, if there is one. Needs the GIL. Only the main thread has handlers.
inline void check_signals() {
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// Called when the module is made: asking Python later could release the GIL in the middle of a call.
void remember_main_thread();
// Python runs signal handlers in its main thread only.
bool in_main_thread() noexcept;

// Sets the InterruptCheck of the main thread while that waits without the GIL.
class SignalScope {
 public:
  SignalScope();

 private:
  InterruptScope scope_;
};

// Runs a call of a buffer in the main thread, without the GIL. If a signal handler raises during a wait for a peer,
// the call fails on all ranks and the handler's exception is thrown here.
template <typename Call>
auto interruptible(Call&& call) {
  try {
    nb::gil_scoped_release const released;
    SignalScope const scope;
    return call();
  } catch (Error const&) {
    if (PyErr_Occurred() == nullptr) throw;
  }
  throw nb::python_error();
}

// Runs a synchronous call of a buffer in this thread, without the GIL.
template <typename Call>
auto run_here(Call&& call) {
  if (in_main_thread()) return interruptible(call);
  nb::gil_scoped_release const released;
  return call();
}

// Runs a call whose waits do not check for interrupts. In the main thread it runs in a thread of its own, and an
// interrupt ends only the wait for that thread, which goes on until the call ends. So `call` must own what it uses.
template <typename Call>
auto aside(Call call) {
  if (!in_main_thread()) {
    nb::gil_scoped_release const released;
    return call();
  }
  std::packaged_task task(std::move(call));
  auto future = task.get_future();
  std::thread(std::move(task)).detach();
  for (;;) {
    {
      nb::gil_scoped_release const released;
      if (future.wait_for(slice) == std::future_status::ready) break;
    }
    check_signals();
  }
  return future.get();
}

// Converts the caller's seconds, cut to a range that clocks can add. Throws InvalidArgument for NaN; `name` is the
// argument's.
std::chrono::milliseconds milliseconds(char const* name, double seconds);

inline double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

// Waits for an event. Returns false if `timeout` passes first.
bool wait_for(Event const& event, std::optional<std::chrono::milliseconds> timeout);

}  // namespace switchyard::python
