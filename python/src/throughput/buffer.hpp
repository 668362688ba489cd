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

  // Throws Unusable in a fork. A call gets the buffer first, since its waits would never end in a fork.
  [[nodiscard]] std::shared_ptr<Buffer> get() const { return buffer_.get(); }
  // Waits for queued calls first.
  void destroy();

  // Whether a synchronous call runs in this thread. Behind asynchronous calls, or an event that is not done, it
  // would block where no signal ends the wait, so the main thread queues it and waits for its event. On a GPU a
  // call does not block there.
  bool runs_here(Event const& after) {
    bool const idle = in_flight_.prune() && after.done();
    return idle || on_gpu_ || !in_main_thread();
  }
  // Releases the inputs of calls that are done.
  void prune() { in_flight_.prune(); }
  // Keeps the inputs of an asynchronous call.
  void keep(Event const& event, std::vector<nb::object> inputs) { in_flight_.add(event, std::move(inputs)); }

 private:
  bool on_gpu_;
  InFlight in_flight_;  // destroyed after the buffer, whose queued calls read the inputs
  Owned<Buffer> buffer_;
};

// Can the engine add to these numbers? Otherwise, since they are of another dtype, lie elsewhere or in one place,
// the framework does.
bool can_be_added_to(Buffer const& buffer, nb::handle numbers);

void bind_buffer(nb::module_& module);
void bind_calls(nb::module_& module, nb::class_<PyBuffer>& buffer);

}  // namespace switchyard::python
