#include "throughput/buffer.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <utility>

#include "buffers.hpp"
#include "communicator.hpp"
#include "gpu.hpp"
#include "switchyard/measure.hpp"
#include "tensors/arrays.hpp"
#include "tensors/dtypes.hpp"
#include "tensors/exchange.hpp"
#include "tensors/inputs.hpp"
#include "tensors/outputs.hpp"
#include "throughput/results.hpp"
#include "waiting.hpp"

namespace switchyard::python {

namespace {

// Throws nothing: the events of queued calls throw their errors.
void drain(Buffer& buffer) noexcept {
  try {
    buffer.synchronize();
  } catch (std::exception const&) {
  }
}

PyBuffer make(OwnedCommunicator const& communicator, BufferOptions const& options) {
  return PyBuffer(
      aside([member = communicator.get(), chosen = on_this_gpu(options)] { return Buffer(*member, chosen); }));
}

nb::tuple to_python(Layout const& layout, Exporter const& exporter) {
  return nb::make_tuple(exporter(layout.num_tokens_per_rank), exporter(layout.num_tokens_per_expert),
                        exporter(layout.is_token_in_rank, {.as_bool = true}), exporter(layout.num_tokens_per_node));
}

nb::tuple layout_of(nb::handle topk_idx, int num_experts, int num_ranks) {
  Exports exports;
  ConstTensorView const view = input("topk_idx", topk_idx, exports);
  Layout const layout = run_here([&] { return switchyard::get_layout(view, num_experts, num_ranks); });
  return to_python(layout, Exporter(topk_idx));
}

nb::tuple get_layout(PyBuffer const& self, nb::handle topk_idx, std::uintptr_t cuda_stream) {
  Exports exports;
  ConstTensorView const view = input("topk_idx", topk_idx, exports);
  auto const buffer = self.get();
  Layout const layout = run_here([&] { return buffer->get_layout(view, cuda_stream); });
  settle(*buffer, topk_idx);
  return to_python(layout, Exporter(topk_idx, gpu_of(*buffer)));
}

// Returns the tensors, and the event after which their contents are valid.
nb::tuple get_layout_async(PyBuffer& self, nb::handle topk_idx, std::uintptr_t cuda_stream) {
  std::vector<nb::object> kept{nb::borrow(topk_idx)};
  ConstTensorView const view = input("topk_idx", topk_idx, kept);
  auto const buffer = self.get();
  self.prune();
  Pending<Layout> const pending = run_here([&] { return buffer->get_layout_async(view, cuda_stream); });
  self.keep(pending.event(), std::move(kept));
  settle(*buffer, topk_idx);
  return nb::make_tuple(to_python(pending.early(), Exporter(topk_idx, gpu_of(*buffer))), PyEvent(pending.event()));
}

// Is it a layout that this buffer's engine has a kernel for? Not in a capture: the memory that a graph writes must
// live as long as the graph, and a result in the heap does not.
bool layout_fits(Buffer const& buffer, nb::handle topk_idx, std::int64_t num_experts, std::uintptr_t stream) {
  auto const ids = borrowed(topk_idx);
  auto const& made_for = buffer.options();
  return on_gpu(buffer) && ids && ids->ndim == 2 && ids->shape[1] == made_for.top_k &&
         num_experts == made_for.num_experts && lies_with(buffer, ids->device) &&
         !is_captured(made_for.device, stream);
}

// The tensors and the event of a layout, or None for it, on the current stream; None in the place of all: it may be
// one of another buffer, or a wrong one, or for the framework.
nb::object layout_if_it_fits(PyBuffer& self, nb::handle topk_idx, std::int64_t num_experts, bool queued) {
  auto const buffer = self.get();
  std::uintptr_t const stream = current_cuda_stream(topk_idx).value_or(0);
  if (!layout_fits(*buffer, topk_idx, num_experts, stream)) return nb::none();
  if (queued) return get_layout_async(self, topk_idx, stream);
  return nb::make_tuple(get_layout(self, topk_idx, stream), nb::none());
}

// Without the GIL: when the heap is full, this waits for memory that earlier calls on the GPU still use.
Tensor allocated(Buffer& buffer, DType dtype, std::vector<std::int64_t> const& shape) {
  nb::gil_scoped_release const released;
  switch (shape.size()) {
    case 1: return buffer.allocate(dtype, {shape[0]});
    case 2: return buffer.allocate(dtype, {shape[0], shape[1]});
    case 3: return buffer.allocate(dtype, {shape[0], shape[1], shape[2]});
    default: throw InvalidArgument("shape: expected 1 to 3 dimensions, seen " + std::to_string(shape.size()));
  }
}

nb::object allocate(PyBuffer const& self, std::string const& dtype, std::vector<std::int64_t> const& shape,
                    nb::handle like) {
  auto const type = dtype_of_name(dtype);
  if (!type || dtype == "bool")
    throw InvalidArgument(
        "dtype: expected bfloat16, float16, float32, float8_e4m3fn, int32, int64 or uint8, seen " + dtype);
  auto const buffer = self.get();
  return Exporter(like, gpu_of(*buffer))(allocated(*buffer, *type, shape));
}

// False: the caller adds them.
bool add_received(PyBuffer const& self, DispatchHandle const& handle, nb::handle to) {
  auto const buffer = self.get();
  if (!can_be_added_to(*buffer, to)) return false;
  Exports exports;
  TensorView const view = output("received_per_expert", to, exports);
  std::uintptr_t const stream = current_cuda_stream(to).value_or(0);
  nb::gil_scoped_release const released;
  return buffer->add_received(handle.handle, view, stream);
}

// None: there is no room, and the caller makes the copy.
nb::object by_column(PyBuffer const& self, nb::handle scales) {
  auto const buffer = self.get();
  Exports exports;
  ConstTensorView const view = input("scales", scales, exports);
  std::uintptr_t const stream = current_cuda_stream(scales).value_or(0);
  Tensor const copy = run_here([&] { return buffer->by_column(view, stream); });
  return Exporter(scales, gpu_of(*buffer))(copy);
}

std::size_t trim(PyBuffer const& self) {
  auto const buffer = self.get();
  return run_here([&] { return buffer->trim(); });
}

// The function is called by threads that do not hold the GIL, and is never let go.
void set_relief(nb::callable function) {
  on_memory_shortage([held = function.release()] {
    nb::gil_scoped_acquire const gil;
    try {
      held();
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("making room on the GPU");
    }
  });
}

void count_calls(PyBuffer const& self, bool on) {
  auto const buffer = self.get();
  run_here([&] { switchyard::count_calls(*buffer, on); });
}

nb::dict call_counts(PyBuffer const& self) {
  auto const buffer = self.get();
  CallCounts counts = run_here([&] { return switchyard::call_counts(*buffer); });
  std::size_t const ranks = counts.dispatch_bytes.size();
  std::size_t const experts = counts.tokens.size() / ranks;
  nb::dict result;
  result["dispatches"] = counts.dispatches;
  result["combines"] = counts.combines;
  result["dispatch_ns"] = counts.dispatch_ns;
  result["combine_ns"] = counts.combine_ns;
  result["dispatch_wait_ns"] = array_of(std::move(counts.dispatch_wait_ns), {ranks});
  result["combine_wait_ns"] = array_of(std::move(counts.combine_wait_ns), {ranks});
  result["dispatch_bytes"] = array_of(std::move(counts.dispatch_bytes), {ranks});
  result["combine_bytes"] = array_of(std::move(counts.combine_bytes), {ranks});
  result["tokens"] = array_of(std::move(counts.tokens), {ranks, experts});
  return result;
}

nb::list phases(PyBuffer const& self) {
  auto const buffer = self.get();
  auto const times = run_here([&] { return switchyard::phases(*buffer); });  // waits for the latest call
  nb::list result;
  for (PhaseTime const& each : times) result.append(nb::make_tuple(each.name, each.us));
  return result;
}

void bind_options(nb::module_& module) {
  nb::enum_<EngineKind>(module, "EngineKind")
      .value("automatic", EngineKind::automatic)
      .value("cpu", EngineKind::cpu)
      .value("cuda", EngineKind::cuda);
  bind_shared_options<BufferOptions>(module, "BufferOptions")
      .def_rw("heap_bytes", &BufferOptions::heap_bytes)
      .def_rw("initial_heap_bytes", &BufferOptions::initial_heap_bytes)
      .def_rw("errors_at_once", &BufferOptions::errors_at_once)
      .def_rw("f32_partials", &BufferOptions::f32_partials);
}

}  // namespace

// One number that looks like several is refused: a framework refuses to add to it, too, or says what it does.
bool can_be_added_to(Buffer const& buffer, nb::handle numbers) {
  auto const seen = borrowed(numbers);
  if (!seen || !lies_with(buffer, seen->device)) return false;
  bool const overlaps = seen->ndim == 1 && seen->shape[0] > 1 && seen->strides != nullptr && seen->strides[0] == 0;
  auto const dtype = dtype_of(seen->dtype);
  return !overlaps && (dtype == DType::i32 || dtype == DType::i64);
}

PyBuffer::~PyBuffer() {
  // A moved-from buffer owns nothing, and in a fork the threads that would end queued work do not exist.
  if (buffer_.usable()) destroy();
}

void PyBuffer::destroy() {
  if (!buffer_.usable()) return buffer_.destroy();
  auto buffer = buffer_.get();  // with the GIL, since another thread may destroy it, too
  {
    nb::gil_scoped_release const released;
    drain(*buffer);
    buffer.reset();
  }
  buffer_.destroy();
  in_flight_.prune();
}

void bind_buffer(nb::module_& module) {
  bind_options(module);
  module.def("on_memory_shortage", &set_relief, nb::arg("relief"));
  module.def("record_stream", [](std::uintptr_t data, std::uintptr_t stream) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): as Python has it
    record_stream(reinterpret_cast<void const*>(data), stream);
  });
  module.def("get_layout", &layout_of, nb::arg("topk_idx"), nb::arg("num_experts"), nb::arg("num_ranks"));
  nb::class_<PyBuffer> buffer(module, "Buffer");
  buffer.def_static("make", &make, nb::arg("communicator"), nb::arg("options"))
      .def("get_layout", &get_layout, nb::arg("topk_idx"), nb::arg("cuda_stream"))
      .def("get_layout_async", &get_layout_async, nb::arg("topk_idx"), nb::arg("cuda_stream"))
      .def("layout_if_it_fits", &layout_if_it_fits, nb::arg("topk_idx").none(), nb::arg("num_experts"),
           nb::arg("queued"))
      .def("allocate", &allocate, nb::arg("dtype"), nb::arg("shape"), nb::arg("like").none())
      .def("add_received", &add_received, nb::arg("handle"), nb::arg("to"))
      .def("by_column", &by_column, nb::arg("scales"))
      .def("phases", &phases)
      .def("count_calls", &count_calls, nb::arg("on"))
      .def("call_counts", &call_counts, "What CallCounts has, by its names.")
      .def_prop_ro("cuda_stream", [](PyBuffer const& self) { return self.get()->cuda_stream(); })
      .def_prop_ro("heap_bytes_used", [](PyBuffer const& self) { return self.get()->heap_bytes_used(); })
      .def_prop_ro("heap_bytes_peak", [](PyBuffer const& self) { return self.get()->heap_bytes_peak(); })
      .def_prop_ro("heap_bytes_now", [](PyBuffer const& self) { return self.get()->heap_bytes_now(); })
      .def("trim", &trim);
  bind_shared_calls(buffer);
  bind_calls(module, buffer);
}

}  // namespace switchyard::python
