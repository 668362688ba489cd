#include "text.hpp"

namespace switchyard::python {

namespace nb = nanobind;

namespace {

constexpr char const* instead_of_failing = "backslashreplace";

nb::object checked(PyObject* made) {
  if (made == nullptr) throw nb::python_error();
  return nb::steal(made);
}

}  // namespace

nb::object to_python(std::string_view text) {
  return checked(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), instead_of_failing));
}

std::string text_of(nb::handle object) {
  nb::str const text(object);
  nb::bytes const bytes(checked(PyUnicode_AsEncodedString(text.ptr(), "utf-8", instead_of_failing)));
  return {bytes.c_str(), bytes.size()};
}

}  // namespace switchyard::python
