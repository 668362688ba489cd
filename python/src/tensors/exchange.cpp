#include "tensors/exchange.hpp"

#include <nanobind/stl/optional.h>

#include "tensors/dtypes.hpp"

namespace switchyard::python {

namespace {

dlpack::ExchangeApi const* look_up(PyTypeObject* type) {
  nb::object const capsule =
      nb::getattr(nb::handle(reinterpret_cast<PyObject*>(type)), "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  auto const* api =
      static_cast<dlpack::ExchangeApi const*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return api->header.version.major == dlpack::major_version && api->borrow_from_object != nullptr ? api : nullptr;
}

}  // namespace

dlpack::ExchangeApi const* exchange_api_of(nb::handle object) {
  // Guarded by the GIL. The reference keeps the type's address from being used by another type.
  static PyTypeObject* known = nullptr;
  static dlpack::ExchangeApi const* api = nullptr;
  PyTypeObject* const type = Py_TYPE(object.ptr());
  if (type == known) return api;
  dlpack::ExchangeApi const* const found = look_up(type);
  if (found == nullptr) return nullptr;
  Py_INCREF(reinterpret_cast<PyObject*>(type));
  Py_XDECREF(reinterpret_cast<PyObject*>(known));
  known = type;
  api = found;
  return api;
}

std::optional<dlpack::Tensor> borrowed(nb::handle tensor) {
  auto const* const api = exchange_api_of(tensor);
  dlpack::Tensor found{};
  if (api == nullptr) return std::nullopt;
  if (api->borrow_from_object(tensor.ptr(), &found) == 0) return found;
  PyErr_Clear();
  return std::nullopt;
}

std::optional<std::uintptr_t> current_cuda_stream(nb::handle tensor) {
  auto const* const api = exchange_api_of(tensor);
  if (api == nullptr || api->current_stream == nullptr) return std::nullopt;
  dlpack::Tensor borrowed{};
  void* stream = nullptr;
  if (api->borrow_from_object(tensor.ptr(), &borrowed) != 0) PyErr_Clear();
  if (device_of(borrowed.device.type) != Device::cuda) return 0;
  if (api->current_stream(to_dlpack(Device::cuda), borrowed.device.id, &stream) != 0) PyErr_Clear();
  return reinterpret_cast<std::uintptr_t>(stream);
}

void bind_exchange(nb::module_& module) {
  module.def("current_cuda_stream", &current_cuda_stream, nb::arg("tensor").none(),
             "Returns the framework's current stream on the tensor's GPU, as an integer; 0 on the CPU; None if the "
             "framework has no C exchange table.");
}

}  // namespace switchyard::python
