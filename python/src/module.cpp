// The extension module switchyard._core: thin; what users see is in python/switchyard.
#include <nanobind/nanobind.h>

#include "communicator.hpp"
#include "errors.hpp"
#include "event.hpp"
#include "low_latency/buffer.hpp"
#include "tensors/exchange.hpp"
#include "throughput/buffer.hpp"
#include "throughput/calls.hpp"
#include "throughput/handle_tokens.hpp"
#include "throughput/results.hpp"
#include "waiting.hpp"

NB_MODULE(_core, module) {
  namespace py = switchyard::python;
  module.doc() = "Bindings of the C++ library. Not an interface: use the package switchyard.";
  // Objects that live until the end of the interpreter are no mistake of their owners.
  nanobind::set_leak_warnings(false);
  module.attr("has_cuda") = SWITCHYARD_HAS_CUDA != 0;
  py::remember_main_thread();
  py::bind_errors(module);
  py::bind_event(module);
  py::bind_exchange(module);
  py::bind_heap_tensor(module);
  py::bind_communicator(module);
  py::bind_results(module);
  py::bind_call_options(module);
  py::bind_buffer(module);
  py::bind_handle_tokens(module);
  py::bind_low_latency(module);
}
