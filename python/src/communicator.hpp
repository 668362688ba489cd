// A Communicator, for Python.
#pragma once

#include <nanobind/nanobind.h>

#include "process.hpp"
#include "switchyard/communicator.hpp"

namespace switchyard::python {

using OwnedCommunicator = Owned<Communicator>;

void bind_communicator(nanobind::module_& module);

}  // namespace switchyard::python
