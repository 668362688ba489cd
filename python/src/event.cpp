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
                      "A point in the order of calls. Event() makes one that is reached already.\n\n"
                      "Copies share their state. Events of both engines have the same type.")
      .def(nb::init<>())
      .def_prop_ro(
          "done", [](PyEvent const& self) { return self.get().done(); },
          "Whether the point is reached. Does not wait. Raises nothing except Unusable after a fork.")
      .def(
          "wait", &wait, nb::arg("timeout") = nb::none(),
          "Blocks this thread until the point is reached, or for `timeout` seconds; None or inf: without limit.\n\n"
          "Returns False if the timeout passes first. Raises the error of the call that the event belongs to. "
          "KeyboardInterrupt ends the wait within 50 ms, but not the call.")
      .def("wait_on", &wait_on, nb::arg("cuda_stream"),
           "Makes `cuda_stream` (a cudaStream_t as an integer) wait for this point. For an event of the CPU engine "
           "it "
           "blocks this thread instead.");
}

}  // namespace switchyard::python
