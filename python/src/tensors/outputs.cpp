#include "tensors/outputs.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <array>
#include <memory>

#include "switchyard/buffer.hpp"
#include "switchyard/error.hpp"
#include "tensors/dtypes.hpp"
#include "tensors/exchange.hpp"

namespace switchyard::python {

namespace {

// A DLPack tensor and the owner of its memory.
struct HandedOut {
  dlpack::ManagedTensor managed{};
  std::array<std::int64_t, max_dims> shape{};
  std::array<std::int64_t, max_dims> strides{};
  std::shared_ptr<void> owner;
  dlpack::ExchangeApi const* api = nullptr;
};

// The framework may have queued work that reads the tensor on another stream than the call's. It is the one that is
// current where the last reference goes: PyTorch's backward pass, for one, frees a tensor on the stream that read
// it.
void note_current_stream(HandedOut const& tensor) noexcept {
  dlpack::Device const device = tensor.managed.tensor.device;
  void* stream = nullptr;
  if (device_of(device.type) != Device::cuda || tensor.api->current_stream == nullptr) return;
  if (tensor.api->current_stream(device.type, device.id, &stream) == 0)
    record_stream(tensor.managed.tensor.data, reinterpret_cast<std::uintptr_t>(stream));
}

dlpack::DataType type_of(Tensor const& tensor, Looks looks) noexcept {
  return looks.as_bool ? dlpack::DataType{.code = 6, .bits = 8, .lanes = 1} : to_dlpack(tensor.dtype());
}

int device_id(Tensor const& tensor, int gpu) noexcept {
  return tensor.view().device == Device::cpu ? 0 : gpu;
}

nb::tuple dlpack_device_of(HeapTensor const& self) {
  return nb::make_tuple(to_dlpack(self.tensor.view().device), device_id(self.tensor, self.gpu));
}

dlpack::ManagedTensor* manage(Tensor const& tensor, Looks looks, int gpu, dlpack::ExchangeApi const* api) {
  auto owned = std::make_unique<HandedOut>();
  TensorView const view = tensor.view();
  owned->shape = view.shape;
  owned->strides = view.strides;
  owned->owner = tensor.owner();
  owned->api = api;
  owned->managed = {.version = {dlpack::major_version, 0},
                    .context = owned.get(),
                    .deleter =
                        [](dlpack::ManagedTensor* self) {
                          std::unique_ptr<HandedOut> const tensor(static_cast<HandedOut*>(self->context));
                          note_current_stream(*tensor);
                        },
                    .flags = 0,
                    .tensor = {.data = view.data,
                               .device = {to_dlpack(view.device), device_id(tensor, gpu)},
                               .ndim = view.ndim,
                               .dtype = type_of(tensor, looks),
                               .shape = owned->shape.data(),
                               .strides = owned->strides.data(),
                               .byte_offset = 0}};
  return &owned.release()->managed;
}

nb::capsule capsule_of(std::shared_ptr<void> const& owner) {
  auto held = std::make_unique<std::shared_ptr<void>>(owner);
  nb::capsule capsule(held.get(), [](void* at) noexcept { delete static_cast<std::shared_ptr<void>*>(at); });
  held.release();
  return capsule;
}

nb::tuple shape_of(Tensor const& tensor) {
  nb::list shape;
  for (int d = 0; d < tensor.view().ndim; ++d) shape.append(tensor.size(d));
  return nb::tuple(shape);
}

nb::tuple byte_strides_of(Tensor const& tensor) {
  auto const size = static_cast<std::int64_t>(size_of(tensor.dtype()));
  nb::list strides;
  for (int d = 0; d < tensor.view().ndim; ++d) strides.append(tensor.view().stride(d) * size);
  return nb::tuple(strides);
}

nb::object to_capsule(HeapTensor const& self) {
  Tensor const& tensor = self.tensor;
  TensorView const view = tensor.view();
  auto const type = type_of(tensor, self.looks);
  nanobind::dlpack::dtype dtype;
  dtype.code = type.code;
  dtype.bits = type.bits;
  dtype.lanes = 1;
  std::array<std::size_t, max_dims> shape{};
  for (int d = 0; d < view.ndim; ++d) shape[static_cast<std::size_t>(d)] = static_cast<std::size_t>(view.size(d));
  nb::ndarray<> const array(view.data, static_cast<std::size_t>(view.ndim), shape.data(),
                            capsule_of(tensor.owner()), view.strides.data(), dtype, to_dlpack(view.device),
                            device_id(tensor, self.gpu));
  return nb::cast(array);
}

// Refuses requests to __dlpack__ that would need a copy: the tensor is exported as it is and where it is.
void check_wishes(HeapTensor const& self, nb::kwargs const& wishes) {
  nb::object const copy = wishes.get("copy", nb::none());
  if (!copy.is_none() && nb::cast<bool>(copy))
    throw nb::buffer_error("copy: expected None or False, seen True: copy what you have imported");
  nb::object const device = wishes.get("dl_device", nb::none());
  if (!device.is_none() && !device.equal(dlpack_device_of(self)))
    throw nb::buffer_error("dl_device: expected the tensor's own, seen another: move what you have imported");
}

// The memory as bytes, for NumPy, which then views them with the right dtype.
nb::object to_bytes(Tensor const& tensor) {
  if (tensor.view().device != Device::cpu)
    throw InvalidArgument("to_bytes: expected a tensor on the CPU, seen one on a GPU");
  std::size_t const bytes = static_cast<std::size_t>(tensor.view().numel()) * size_of(tensor.dtype());
  using Bytes = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>;
  return nb::cast(Bytes(tensor.view().data, {bytes}, capsule_of(tensor.owner())));
}

}  // namespace

Exporter::Exporter(nb::handle like, int gpu) : api_(exchange_api_of(like)), gpu_(gpu) {}

nb::object Exporter::operator()(Tensor const& tensor, Looks looks) const {
  if (!tensor.given()) return nb::none();
  if (api_ == nullptr) return nb::cast(HeapTensor{tensor, looks, gpu_});
  void* object = nullptr;
  if (api_->object_from_managed(manage(tensor, looks, gpu_, api_), &object) != 0) throw nb::python_error();
  return nb::steal(nb::handle(static_cast<PyObject*>(object)));
}

void bind_heap_tensor(nb::module_& module) {
  nb::class_<HeapTensor>(module, "HeapTensor",
                         "A contiguous tensor in the symmetric heap, for any framework that takes DLPack. The "
                         "memory is freed with its "
                         "last owner.")
      .def_prop_ro("shape", [](HeapTensor const& self) { return shape_of(self.tensor); })
      .def_prop_ro(
          "strides", [](HeapTensor const& self) { return byte_strides_of(self.tensor); }, "In bytes.")
      .def_prop_ro(
          "dtype",
          [](HeapTensor const& self) { return self.looks.as_bool ? "bool" : numpy_name_of(self.tensor.dtype()); },
          "The name in NumPy and ml_dtypes.")
      .def("__dlpack_device__", &dlpack_device_of)
      .def(
          "__dlpack__",
          [](HeapTensor const& self, nb::kwargs const& options) {
            check_wishes(self, options);
            return to_capsule(self);
          },
          nb::sig("def __dlpack__(self, **options: object) -> object"))
      .def(
          "to_bytes", [](HeapTensor const& self) { return to_bytes(self.tensor); },
          "Returns the memory as a NumPy array of bytes; CPU only.");
}

}  // namespace switchyard::python
