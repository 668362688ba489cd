// A Buffer, for Python.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <vector>

#include "event.hpp"
#include "process.hpp"
#include "switchyard/buffer.hpp"
#include "waiting.hpp"

namespace switchyard::python {

class PyBuffer {
 public:
  explicit PyBuffer(Buffer&& buffer)
      : on_gpu_(buffer.engine() == EngineKind::cuda), buffer_("Buffer", std::move(buffer)) {}
  PyBuffer(PyBuffer&&) noexcept = default;
  PyBuffer& operator=(PyBuffer&&) = delete;
  ~PyBuffer();

  // Before all else: what follows would wait for ever in a fork.
  [[nodiscard]] std::shared_ptr<Buffer> get() const { return buffer_.get(); }
  // Waits for queued work first.
  void destroy();

  // Whether a synchronous call would run at once, in this thread. Behind asynchronous calls, or an event, it would
  // block where no signal ends the wait: in the main thread it is then queued, too. On a GPU it is queued behind
  // them by itself.
  bool runs_here(Event const& after) {
    bool const idle = in_flight_.prune() && after.done();
    return idle || on_gpu_ || !in_main_thread();
  }
  // Lets go of what is done.
  void prune() { in_flight_.prune(); }
  // Of an asynchronous call.
  void keep(Event const& event, std::vector<nb::object> inputs) { in_flight_.add(event, std::move(inputs)); }

 private:
  bool on_gpu_;
  InFlight in_flight_;  // goes last: queued work reads it
  Owned<Buffer> buffer_;
};

// Runs a synchronous call of a Buffer without the GIL.
template <typename Call>
auto run_here(Call&& call) {
  if (in_main_thread()) return interruptible(call);
  nb::gil_scoped_release const released;
  return call();
}

void bind_buffer(nb::module_& module);
void bind_dispatch(nb::class_<PyBuffer>& buffer);
void bind_combine(nb::class_<PyBuffer>& buffer);

}  // namespace switchyard::python
