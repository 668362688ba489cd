#include "errors.hpp"

#include <system_error>

#include "switchyard/error.hpp"
#include "text.hpp"

namespace switchyard::python {

namespace nb = nanobind;

namespace {

char const* class_of(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::invalid_argument: return "InvalidArgument";
    case ErrorCode::timeout: return "Timeout";
    case ErrorCode::peer_lost: return "PeerLost";
    case ErrorCode::out_of_memory: return "OutOfMemory";
    case ErrorCode::unsupported: return "Unsupported";
    case ErrorCode::system: return "SystemCallError";
  }
  return "Error";
}

void raise(nb::handle type, nb::handle instance) {
  PyErr_SetObject(type.ptr(), instance.ptr());
}

void translate(std::exception_ptr const& pointer, void* /*unused*/) {
  // Anything else goes on to nanobind's own translators.
  try {
    std::rethrow_exception(pointer);
  } catch (Error const& error) {
    nb::object const type = nb::module_::import_("switchyard._errors").attr(class_of(error.code()));
    raise(type, type(to_python(error.what()), error.rank(), error.peer(), to_python(error.phase())));
  } catch (Unusable const& error) {
    nb::object const type = nb::module_::import_("switchyard._errors").attr("Unusable");
    raise(type, type(to_python(error.what())));
  } catch (std::system_error const& error) {
    // Of the standard library (a thread that could not be started, say): in the words of the system's locale.
    nb::object const type = nb::module_::import_("switchyard._errors").attr("SystemCallError");
    raise(type, type(to_python(error.what())));
  }
}

}  // namespace

void bind_errors(nb::module_& /*module*/) {
  nb::register_exception_translator(&translate);
}

}  // namespace switchyard::python
