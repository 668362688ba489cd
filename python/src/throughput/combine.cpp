#include <nanobind/nanobind.h>

#include <string>
#include <utility>

#include "settle.hpp"
#include "tensors/inputs.hpp"
#include "text.hpp"
#include "throughput/buffer.hpp"
#include "throughput/calls.hpp"

namespace switchyard::python {

namespace {

struct Inputs {
  nb::handle x;
  nb::handle handle;
  nb::handle topk_weights;
  nb::handle row_weights;
  nb::handle rest;  // None, or (bias0, bias1, out)
  Exports exports{};

  [[nodiscard]] std::vector<nb::object> kept() const {
    return kept_alive({x, handle, topk_weights, row_weights, rest}, exports);
  }
};

Handle handle_of(nb::handle object) {
  if (nb::isinstance<DispatchHandle>(object)) return nb::cast<DispatchHandle const&>(object).handle;
  std::string const text =
      std::string("handle: expected the Handle of a dispatch, seen ") + text_of(nb::type_name(object.type()));
  throw nb::type_error(text.c_str());
}

CombineArgs arguments_of(Inputs& inputs, CallOptions const& options) {
  CombineArgs args;
  args.x = input("x", inputs.x, inputs.exports);
  if (!inputs.handle.is_none()) args.handle = handle_of(inputs.handle);
  args.topk_weights = input("topk_weights", inputs.topk_weights, inputs.exports);
  args.row_weights = input("row_weights", inputs.row_weights, inputs.exports);
  if (!inputs.rest.is_none()) {
    auto const rest = nb::cast<nb::tuple>(inputs.rest);
    args.bias0 = input("bias0", rest[0], inputs.exports);
    args.bias1 = input("bias1", rest[1], inputs.exports);
    args.out = output("out", rest[2], inputs.exports);
  }
  args.num_workers = options.num_workers;
  args.num_sms = options.num_sms;
  args.after = options.after;
  args.cuda_stream = options.cuda_stream;
  return args;
}

CombineResult combine(PyBuffer& self, Inputs inputs, CallOptions const& options);

// As in a dispatch: peers are told of what only this rank sees.
CombineArgs arguments(PyBuffer& self, Inputs& inputs, CallOptions const& options) {
  try {
    return arguments_of(inputs, options);
  } catch (...) {
    try {
      nb::object const none = nb::none();
      combine(self, {none, none, none, none, none}, {.cuda_stream = options.cuda_stream});
    } catch (Error const&) {
    }
    throw;
  }
}

PendingCombine start(PyBuffer& self, Inputs inputs, CallOptions const& options) {
  auto const buffer = self.get();
  CombineArgs const args = arguments(self, inputs, options);
  self.prune();
  Pending<Combined> const pending = [&] {
    nb::gil_scoped_release const released;
    return buffer->combine_async(args);
  }();
  self.keep(pending.event(), inputs.kept());
  settle(*buffer, inputs.x);
  bool const on_gpu = buffer->engine() == EngineKind::cuda;
  return {pending, PyEvent(pending.event()), {{}, Exporter(inputs.x, gpu_of(*buffer))}, on_gpu};
}

CombineResult combine(PyBuffer& self, Inputs inputs, CallOptions const& options) {
  auto const buffer = self.get();
  if (!self.runs_here(options.after)) {
    PendingCombine const later = start(self, std::move(inputs), options);
    wait_for(later.event.get(), std::nullopt);
    return {later.pending.early(), later.result.exporter};
  }
  CombineArgs const args = arguments(self, inputs, options);
  Combined combined = run_here([&] { return buffer->combine(args); });
  settle(*buffer, inputs.x);
  return {std::move(combined), Exporter(inputs.x, gpu_of(*buffer))};
}

}  // namespace

void bind_combine(nb::class_<PyBuffer>& buffer) {
  buffer
      .def(
          "combine",
          [](PyBuffer& self, nb::handle x, nb::handle handle, nb::handle topk_weights, nb::handle row_weights,
             nb::handle rest, CallOptions const& options) {
            return combine(self, {x, handle, topk_weights, row_weights, rest}, options);
          },
          nb::arg("x").none(), nb::arg("handle").none(), nb::arg("topk_weights").none(),
          nb::arg("row_weights").none(), nb::arg("rest").none(), nb::arg("options"))
      .def(
          "combine_async",
          [](PyBuffer& self, nb::handle x, nb::handle handle, nb::handle topk_weights, nb::handle row_weights,
             nb::handle rest, CallOptions const& options) {
            return start(self, {x, handle, topk_weights, row_weights, rest}, options);
          },
          nb::arg("x").none(), nb::arg("handle").none(), nb::arg("topk_weights").none(),
          nb::arg("row_weights").none(), nb::arg("rest").none(), nb::arg("options"));
}

}  // namespace switchyard::python
