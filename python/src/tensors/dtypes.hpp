// Element types and devices: Switchyard's, DLPack's, NumPy's.
#pragma once

#include <optional>
#include <string_view>

#include "switchyard/dtype.hpp"
#include "tensors/dlpack.hpp"

namespace switchyard::python {

std::optional<DType> dtype_of(dlpack::DataType type) noexcept;
std::optional<DType> dtype_of_name(std::string_view numpy_name) noexcept;
dlpack::DataType to_dlpack(DType dtype) noexcept;
// As NumPy and ml_dtypes call it.
char const* numpy_name_of(DType dtype) noexcept;

// Memory that the host pins counts as the host's, memory that both see as the GPU's.
std::optional<Device> device_of(std::int32_t dlpack_type) noexcept;
std::int32_t to_dlpack(Device device) noexcept;

}  // namespace switchyard::python
