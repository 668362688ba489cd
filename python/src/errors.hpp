// Turns switchyard::Error into the exception classes of switchyard/_errors.py.
#pragma once

#include <nanobind/nanobind.h>

#include <stdexcept>

namespace switchyard::python {

// An object can no longer be used: it was destroyed, or this is a forked child.
class Unusable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void bind_errors(nanobind::module_& module);

}  // namespace switchyard::python
