#include "exchange.hpp"

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

}  // namespace switchyard::python
