// The extension module switchyard._core: a thin layer. Users see the package in python/switchyard.
#include <nanobind/nanobind.h>

#include "communicator.hpp"
#include "errors.hpp"
#include "event.hpp"
#include "experts.hpp"
#include "low_latency/buffer.hpp"
#include "tensors/exchange.hpp"
#include "tensors/outputs.hpp"
#include "throughput/buffer.hpp"
#include "throughput/results.hpp"
#include "waiting.hpp"

NB_MODULE(_core, module) {
  namespace py = switchyard::python;
  module.doc() = "Bindings of the C++ library. Not an interface: use the package switchyard.";
  // Programs may keep objects until the interpreter ends.
  nanobind::set_leak_warnings(false);
  module.attr("has_cuda") = SWITCHYARD_HAS_CUDA != 0;
  py::remember_main_thread();
  py::bind_errors(module);
  py::bind_event(module);
  py::bind_exchange(module);
  py::bind_heap_tensor(module);
  py::bind_communicator(module);
  py::bind_results(module);
  py::bind_buffer(module);
  py::bind_low_latency(module);
  py::bind_experts(module);
}
