#include "low_latency/buffer.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "communicator.hpp"
#include "tensors/dtypes.hpp"
#include "waiting.hpp"

namespace switchyard::python {

namespace {

OwnedLowLatency make(OwnedCommunicator const& communicator, LowLatencyOptions const& options) {
  return {"LowLatencyBuffer", aside([member = communicator.get(), chosen = on_this_gpu(options)] {
            return LowLatencyBuffer(*member, chosen);
          })};
}

nb::object outputs(OwnedLowLatency const& self, PyLowLatencyHandle const& handle, std::string const& dtype,
                   nb::handle like) {
  auto const type = dtype_of_name(dtype);
  if (!type) throw InvalidArgument("dtype: expected bfloat16 or float16, seen " + dtype);
  auto const buffer = self.get();
  Tensor const tensor = buffer->outputs(handle.value->handle, *type);
  return Exporter(like, gpu_of(*buffer))(Tensor(tensor.view(), handle.value));
}

// Both wait for calls on the GPU.
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
  using Options = LowLatencyOptions;
  nb::class_<Options>(module, "LowLatencyOptions")
      .def(nb::init<>())
      .def_rw("max_tokens", &Options::max_tokens)
      .def_rw("hidden", &Options::hidden)
      .def_rw("num_experts", &Options::num_experts)
      .def_rw("top_k", &Options::top_k)
      .def_rw("max_results", &Options::max_results)
      .def_rw("max_row_bytes", &Options::max_row_bytes)
      .def_rw("max_scale_bytes", &Options::max_scale_bytes)
      .def_prop_rw(
          "timeout", [](Options const& self) { return seconds(self.timeout); },
          [](Options& self, double value) { self.timeout = milliseconds("timeout", value); })
      .def_rw("mask_late_peers", &Options::mask_late_peers)
      .def_rw("engine", &Options::engine)
      .def_rw("num_workers", &Options::num_workers)
      .def_rw("device", &Options::device)
      .def_rw("num_sms", &Options::num_sms);
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
      .def("synchronize",
           [](OwnedLowLatency const& self) { aside([buffer = self.get()] { buffer->synchronize(); }); })
      .def("reset", [](OwnedLowLatency const& self) { aside([buffer = self.get()] { buffer->reset(); }); })
      .def("destroy", &OwnedLowLatency::destroy)
      .def_prop_ro(
          "engine",
          [](OwnedLowLatency const& self) { return self.get()->engine() == EngineKind::cuda ? "cuda" : "cpu"; })
      .def_prop_ro("num_local_experts", [](OwnedLowLatency const& self) { return self.get()->num_local_experts(); })
      .def_prop_ro("num_bytes", [](OwnedLowLatency const& self) { return self.get()->bytes(); });
  bind_low_latency_calls(buffer);
}

}  // namespace switchyard::python
