// The C exchange table of a tensor type (DLPack 1.2 and newer; PyTorch has it). Tensors cross without a Python
// call.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>

#include "tensors/dlpack.hpp"

namespace switchyard::python {

namespace nb = nanobind;

// Returns null if the type has no table. Remembers the latest type.
dlpack::ExchangeApi const* exchange_api_of(nb::handle object);

// What a tensor is, by its type's table. Empty without one, and for what DLPack cannot describe. Valid as long as
// the tensor lives.
std::optional<dlpack::Tensor> borrowed(nb::handle tensor);

// The framework's current stream on the tensor's GPU, as an integer; 0 on the CPU. Empty if the type has no table.
// Does not throw for tensors that calls refuse: the call itself does.
std::optional<std::uintptr_t> current_cuda_stream(nb::handle tensor);

void bind_exchange(nb::module_& module);

}  // namespace switchyard::python
