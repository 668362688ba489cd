// What the bindings of buffers of both modes have in common.
#pragma once

#include <nanobind/nanobind.h>

#include "switchyard/buffer.hpp"
#include "waiting.hpp"

namespace switchyard::python {

namespace nb = nanobind;

template <typename Options>
nb::class_<Options> bind_shared_options(nb::module_& module, char const* name) {
  return nb::class_<Options>(module, name)
      .def(nb::init<>())
      .def_rw("max_tokens", &Options::max_tokens)
      .def_rw("hidden", &Options::hidden)
      .def_rw("num_experts", &Options::num_experts)
      .def_rw("top_k", &Options::top_k)
      .def_prop_rw(
          "timeout", [](Options const& self) { return seconds(self.timeout); },
          [](Options& self, double value) { self.timeout = milliseconds("timeout", value); })
      .def_rw("engine", &Options::engine)
      .def_rw("num_workers", &Options::num_workers)
      .def_rw("device", &Options::device)
      .def_rw("num_sms", &Options::num_sms);
}

// `Self` is the owner of a buffer that Python sees.
template <typename Self>
void bind_shared_calls(nb::class_<Self>& buffer) {
  buffer.def("synchronize", [](Self const& self) { aside([buffer = self.get()] { buffer->synchronize(); }); })
      .def("reset", [](Self const& self) { aside([buffer = self.get()] { buffer->reset(); }); })
      .def("destroy", &Self::destroy)
      .def_prop_ro("engine",
                   [](Self const& self) { return self.get()->engine() == EngineKind::cuda ? "cuda" : "cpu"; });
}

}  // namespace switchyard::python
