#include "event.hpp"

#include <nanobind/stl/optional.h>

#include "waiting.hpp"

namespace switchyard::python {

namespace {

bool wait(Event const& self, std::optional<double> timeout) {
  if (!timeout) return wait_for(self, std::nullopt);
  return wait_for(self, std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>(*timeout)));
}

}  // namespace

void bind_event(nb::module_& module) {
  nb::class_<Event>(module, "Event",
                    "A point in the order of calls. One that was made by Event() is complete.\n\n"
                    "Copies share the state; events of both engines look alike.")
      .def(nb::init<>())
      .def_prop_ro("done", &Event::done, "Whether the point was reached. Does not wait and does not raise.")
      .def("wait", &wait, nb::arg("timeout") = nb::none(),
           "Blocks this thread until the point is reached, or for `timeout` seconds.\n\n"
           "Returns False when the timeout passed first. Raises what the call raised that the event belongs to. "
           "KeyboardInterrupt ends the wait within 50 ms, not the call.")
      .def("wait_on", &Event::wait_on, nb::arg("cuda_stream"), nb::call_guard<nb::gil_scoped_release>(),
           "What is queued later on `cuda_stream` (a cudaStream_t as an integer) starts after this point. An event "
           "of the CPU engine is waited for here and now.");
}

}  // namespace switchyard::python
