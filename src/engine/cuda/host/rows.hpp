// Rows of tensors, in bytes.
#pragma once

#include <cstdint>

#include "switchyard/tensor.hpp"

namespace switchyard::cuda {

inline std::int64_t row_bytes_of(ConstTensorView const& view) {
  return (view.ndim == 2 ? view.size(1) : 1) * static_cast<std::int64_t>(size_of(view.dtype));
}

inline std::int64_t row_stride_of(ConstTensorView const& view) {
  return view.stride(0) * static_cast<std::int64_t>(size_of(view.dtype));
}

// Does the copy engine take such rows?
inline bool suits_bulk_copies(void const* rows, std::int64_t stride, std::uint32_t bytes) {
  return reinterpret_cast<std::uintptr_t>(rows) % 16 == 0 && stride % 16 == 0 && bytes % 16 == 0;
}

}  // namespace switchyard::cuda
