// Blocking calls: without the GIL, and ended by what a signal handler raises (KeyboardInterrupt).
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

// How long a signal may wait for Python's handler.
inline constexpr std::chrono::milliseconds slice{50};

// Throws what a signal handler raises. With the GIL; does nothing but in the main thread.
inline void check_signals() {
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// When the module is made: asking Python later could let go of the GIL in the midst of a call.
void remember_main_thread();
// Python runs signal handlers in its main thread only.
bool in_main_thread() noexcept;

// As the InterruptCheck of the main thread, while it waits without the GIL.
class SignalScope {
 public:
  SignalScope();

 private:
  InterruptScope scope_;
};

// Runs a call of a Buffer in this thread, without the GIL. When a signal handler raises during a wait for a peer,
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

// The same for calls whose waits ask nobody: they run in a thread of their own. After an interrupt that thread goes
// on by itself until the call ends; `call` must own what it uses.
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

// Seconds that the caller says, as long as can be counted. Throws InvalidArgument for NaN; `name` is the
// argument's.
std::chrono::milliseconds milliseconds(char const* name, double seconds);

// The other way round.
inline double seconds(std::chrono::milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

// Waits for an event. False when `timeout` passes first.
bool wait_for(Event const& event, std::optional<std::chrono::milliseconds> timeout);

}  // namespace switchyard::python
