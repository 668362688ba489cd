// The C exchange table of a tensor type (DLPack 1.2 and newer; PyTorch has it): no Python call per tensor.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>

#include "tensors/dlpack.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// Null when the type offers none. The latest type is remembered.
dlpack::ExchangeApi const* exchange_api_of(nb::handle object);

// The stream that the tensor's framework works on where it lies, as an integer; 0 on the CPU. Empty when its type
// has no table. Throws nothing for what is no good tensor: the call that it is for says so.
std::optional<std::uintptr_t> current_cuda_stream(nb::handle tensor);

void bind_exchange(nb::module_& module);

}  // namespace switchyard::python
