// Converts element types and devices between Switchyard, DLPack and NumPy.
#pragma once

#include <optional>
#include <string_view>

#include "switchyard/dtype.hpp"
#include "tensors/dlpack.hpp"

namespace switchyard::python {

std::optional<DType> dtype_of(dlpack::DataType type) noexcept;
std::optional<DType> dtype_of_name(std::string_view numpy_name) noexcept;
// One that rows may have.
bool is_floating(dlpack::DataType type) noexcept;
// Signed or not, of any width; not bool.
bool is_integer(dlpack::DataType type) noexcept;
dlpack::DataType to_dlpack(DType dtype) noexcept;
// The name in NumPy and ml_dtypes.
char const* numpy_name_of(DType dtype) noexcept;

// Pinned host memory counts as the host's, managed memory as the GPU's.
std::optional<Device> device_of(std::int32_t dlpack_type) noexcept;
std::int32_t to_dlpack(Device device) noexcept;

}  // namespace switchyard::python
