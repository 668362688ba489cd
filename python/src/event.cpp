#include "event.hpp"

#include <nanobind/stl/optional.h>

#include "waiting.hpp"

namespace switchyard::python {

namespace {

bool wait(PyEvent const& self, std::optional<double> timeout) {
  if (!timeout) return wait_for(self.get(), std::nullopt);
  return wait_for(self.get(), milliseconds("timeout", *timeout));
}

void wait_on(PyEvent const& self, std::uintptr_t cuda_stream) {
  Event const& event = self.get();
  nb::gil_scoped_release const released;
  event.wait_on(cuda_stream);
}

}  // namespace

void bind_event(nb::module_& module) {
  nb::class_<PyEvent>(module, "Event",
                      "A point in the order of calls. One that was made by Event() is complete.\n\n"
                      "Copies share the state; events of both engines look alike.")
      .def(nb::init<>())
      .def_prop_ro(
          "done", [](PyEvent const& self) { return self.get().done(); },
          "Whether the point was reached. Does not wait and does not raise, but for Unusable after a fork.")
      .def("wait", &wait, nb::arg("timeout") = nb::none(),
           "Blocks this thread until the point is reached, or for `timeout` seconds; inf: as None.\n\n"
           "Returns False when the timeout passed first. Raises what the call raised that the event belongs to. "
           "KeyboardInterrupt ends the wait within 50 ms, not the call.")
      .def("wait_on", &wait_on, nb::arg("cuda_stream"),
           "What is queued later on `cuda_stream` (a cudaStream_t as an integer) starts after this point. An event "
           "of the CPU engine is waited for here and now.");
}

}  // namespace switchyard::python
