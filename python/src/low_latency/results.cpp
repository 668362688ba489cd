// Options and results of the calls of the low-latency mode.
#include <nanobind/stl/optional.h>

#include <string>
#include <utility>

#include "gpu.hpp"
#include "low_latency/buffer.hpp"

namespace switchyard::python {

namespace {

// Frameworks without a C exchange table are asked in Python.
std::uintptr_t current_stream_of(nb::handle tensor) {
  if (auto const stream = current_cuda_stream(tensor)) return *stream;
  nb::object const ask = nb::module_::import_("switchyard._frameworks").attr("current_cuda_stream");
  return nb::cast<std::uintptr_t>(ask(tensor));
}

}  // namespace

void PyReceiveHook::operator()(std::optional<std::uintptr_t> cuda_stream) {
  auto const buffer = nb::cast<OwnedLowLatency&>(buffer_).get();  // throws when it was destroyed
  auto const hook = std::exchange(hook_, nullptr);
  auto const kept = std::exchange(kept_, {});
  if (!hook) return;
  nb::handle const x = kept.front();  // the first input
  std::uintptr_t const stream = cuda_stream ? *cuda_stream : current_stream_of(x);
  run_here([&] { (*hook)(stream); });
  settle(*buffer, x, stream);
}

std::shared_ptr<LowLatencyReceived> received_of(char const* name, nb::handle object) {
  if (nb::isinstance<PyLowLatencyHandle>(object)) return nb::cast<PyLowLatencyHandle const&>(object).value;
  if (!nb::isinstance<WeakLowLatencyResult>(object))
    throw wrong_type(name, "the handle of a low-latency dispatch", object);
  auto received = nb::cast<WeakLowLatencyResult const&>(object).value.lock();
  if (received == nullptr)
    throw InvalidArgument(std::string(name) +
                          ": expected the handle of a result that lives, seen one that is freed");
  return received;
}

namespace {

void bind_call_options(nb::module_& module) {
  nb::enum_<SendCast>(module, "SendCast")
      .value("none", SendCast::none)
      .value("fp8", SendCast::fp8)
      .value("fp8_pow2", SendCast::fp8_pow2)
      .value("fp8_ue8m0", SendCast::fp8_ue8m0);
  nb::enum_<SlotLayout>(module, "SlotLayout")
      .value("expert_major", SlotLayout::expert_major)
      .value("rank_major", SlotLayout::rank_major);
  nb::enum_<CombineCoding>(module, "CombineCoding")
      .value("none", CombineCoding::none)
      .value("logfmt10", CombineCoding::logfmt10);
  nb::class_<LowLatencyCallOptions>(module, "LowLatencyCallOptions",
                                    "Options of a low-latency call; see switchyard.interop.")
      .def(nb::init<>())
      .def_rw("cast", &LowLatencyCallOptions::cast)
      .def_rw("layout", &LowLatencyCallOptions::layout)
      .def_rw("coding", &LowLatencyCallOptions::coding)
      .def_rw("num_workers", &LowLatencyCallOptions::num_workers)
      .def_rw("num_sms", &LowLatencyCallOptions::num_sms)
      .def_rw("cuda_stream", &LowLatencyCallOptions::cuda_stream)
      .def_rw("current_stream", &LowLatencyCallOptions::current_stream)
      .def_rw("with_hook", &LowLatencyCallOptions::with_hook);
}

template <auto Member>
nb::object tensor(LowLatencyResult const& self) {
  return self((*self.value).*Member);
}

nb::object alive(WeakLowLatencyResult const& self) {
  auto value = self.value.lock();
  if (value == nullptr) return nb::none();
  return nb::cast(LowLatencyResult{std::move(value), self.exporter, self.num_tokens});
}

}  // namespace

void bind_low_latency_results(nb::module_& module) {
  bind_call_options(module);
  nb::class_<PyLowLatencyHandle>(
      module, "LowLatencyHandle",
      "The handle of a low-latency dispatch. It holds the slots of the dispatch, as its tensors do.")
      .def_ro("num_tokens", &PyLowLatencyHandle::num_tokens, "The number of this rank's tokens in the dispatch.");
  nb::class_<LowLatencyResult>(
      module, "LowLatencyResult",
      "The result of a low-latency dispatch: the properties of switchyard.LowLatencyReceived.")
      .def_prop_ro("x", &tensor<&LowLatencyReceived::x>)
      .def_prop_ro("scales", &tensor<&LowLatencyReceived::scales>)
      .def_prop_ro("counts", &tensor<&LowLatencyReceived::counts>)
      .def_prop_ro("ranges", &tensor<&LowLatencyReceived::ranges>)
      .def_prop_ro("source_token", &tensor<&LowLatencyReceived::source_token>)
      .def_prop_ro("topk_idx", &tensor<&LowLatencyReceived::topk_idx>)
      .def_prop_ro("topk_weights", &tensor<&LowLatencyReceived::topk_weights>)
      .def_prop_ro("handle",
                   [](LowLatencyResult const& self) {
                     return PyLowLatencyHandle{self.value, self.num_tokens};
                   })
      .def("weak", [](LowLatencyResult const& self) {
        return WeakLowLatencyResult{self.value, self.exporter, self.num_tokens};
      });
  nb::class_<WeakLowLatencyResult>(module, "WeakLowLatencyResult",
                                   "Finds a result again: called, it returns the LowLatencyResult while one of its "
                                   "tensors or its handle lives, and None afterwards. One that dispatch_tensors "
                                   "returned keeps the result itself until release().")
      .def("__call__", &alive)
      .def_prop_ro(
          "alive", [](WeakLowLatencyResult const& self) { return !self.value.expired(); },
          "Whether it would return one.")
      .def_prop_ro(
          "holds", [](WeakLowLatencyResult const& self) { return self.held != nullptr; },
          "Whether it keeps the result itself.")
      .def_ro("num_tokens", &WeakLowLatencyResult::num_tokens, "The number of this rank's tokens in the dispatch.")
      .def(
          "release", [](WeakLowLatencyResult& self) { self.held.reset(); },
          "From here on only tensors and handles of the result keep it.");
  nb::class_<PyReceiveHook>(module, "ReceiveHook")
      .def("__call__", &PyReceiveHook::operator(), nb::arg("cuda_stream") = nb::none(),
           "None: the stream that is current in the framework of x.");
}

}  // namespace switchyard::python
