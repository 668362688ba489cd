// The C exchange table of a tensor type (DLPack 1.2 and newer; PyTorch has it): no Python call per tensor.
#pragma once

#include <nanobind/nanobind.h>

#include "dlpack.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// Null when the type offers none. The latest type is remembered.
dlpack::ExchangeApi const* exchange_api_of(nb::handle object);

}  // namespace switchyard::python
