// Rows of tensors, in bytes. Of a tensor with one dimension a row is an element.
#pragma once

#include <cstddef>
#include <cstdint>

#include "switchyard/tensor.hpp"

namespace switchyard {

inline std::size_t row_bytes_of(ConstTensorView const& view) {
  return static_cast<std::size_t>(view.ndim == 2 ? view.size(1) : 1) * size_of(view.dtype);
}

inline std::int64_t row_stride_of(ConstTensorView const& view) {
  return view.stride(0) * static_cast<std::int64_t>(size_of(view.dtype));
}

inline std::byte const* row_at(ConstTensorView const& view, std::int64_t row) {
  return static_cast<std::byte const*>(view.data) + row * row_stride_of(view);
}

// Null where there is no tensor.
inline std::byte const* row_or_none(ConstTensorView const& view, std::int64_t row) {
  return view.given() ? row_at(view, row) : nullptr;
}

// Whether its rows lie one behind the other, without gaps.
inline bool is_contiguous(ConstTensorView const& view) {
  if (view.ndim == 1) return view.stride(0) == 1 || view.size(0) <= 1;
  return (view.stride(1) == 1 || view.size(1) <= 1) && (view.stride(0) == view.size(1) || view.size(0) <= 1);
}

}  // namespace switchyard
