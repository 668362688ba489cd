#include "low_latency/buffer.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "buffers.hpp"
#include "communicator.hpp"
#include "gpu.hpp"
#include "tensors/dtypes.hpp"
#include "waiting.hpp"

namespace switchyard::python {

namespace {

OwnedLowLatency make(OwnedCommunicator const& communicator, LowLatencyOptions const& options) {
  return {"LowLatencyBuffer", aside([member = communicator.get(), chosen = on_this_gpu(options)] {
            return LowLatencyBuffer(*member, chosen);
          })};
}

nb::object outputs(OwnedLowLatency const& self, nb::handle handle, std::string const& dtype, nb::handle like) {
  auto const type = dtype_of_name(dtype);
  if (!type) throw InvalidArgument("dtype: expected bfloat16 or float16, seen " + dtype);
  auto const buffer = self.get();
  auto const received = received_of("handle", handle);
  Tensor const tensor = buffer->outputs(received->handle, *type);
  return Exporter(like, gpu_of(*buffer))(Tensor(tensor.view(), received));
}

// mask and masked wait for calls on the GPU, so they run without the GIL.
void mask(OwnedLowLatency const& self, int rank, bool masked) {
  auto const buffer = self.get();
  nb::gil_scoped_release const released;
  buffer->mask(rank, masked);
}

std::vector<bool> masked(OwnedLowLatency const& self) {
  auto const buffer = self.get();
  nb::gil_scoped_release const released;
  return buffer->masked();
}

void bind_options(nb::module_& module) {
  bind_shared_options<LowLatencyOptions>(module, "LowLatencyOptions")
      .def_rw("max_results", &LowLatencyOptions::max_results)
      .def_rw("max_row_bytes", &LowLatencyOptions::max_row_bytes)
      .def_rw("max_scale_bytes", &LowLatencyOptions::max_scale_bytes)
      .def_rw("mask_late_peers", &LowLatencyOptions::mask_late_peers);
}

}  // namespace

void bind_low_latency(nb::module_& module) {
  bind_options(module);
  bind_low_latency_results(module);
  nb::class_<OwnedLowLatency> buffer(module, "LowLatencyBuffer");
  buffer.def_static("make", &make, nb::arg("communicator"), nb::arg("options"))
      .def("outputs", &outputs, nb::arg("handle"), nb::arg("dtype"), nb::arg("like").none())
      .def("mask", &mask, nb::arg("rank"), nb::arg("masked"))
      .def("masked", &masked)
      .def_prop_ro("num_local_experts", [](OwnedLowLatency const& self) { return self.get()->num_local_experts(); })
      .def_prop_ro("num_bytes", [](OwnedLowLatency const& self) { return self.get()->bytes(); });
  bind_shared_calls(buffer);
  bind_low_latency_calls(buffer);
}

}  // namespace switchyard::python
