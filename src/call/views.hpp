// Checks of one tensor that the caller passed. They throw InvalidArgument, which names the tensor, what was
// expected and what was seen.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "switchyard/tensor.hpp"

namespace switchyard {

// Stands for an extent that may be anything.
inline constexpr std::int64_t any = -1;

void check_dtype(std::string_view name, ConstTensorView const& view, std::initializer_list<DType> allowed);
// The tensor must lie on the engine's device and have these extents.
void check_shape(std::string_view name, ConstTensorView const& view, std::initializer_list<std::int64_t> expected,
                 Device device);
// Bytes of a tensor without gaps.
inline std::size_t bytes_without_gaps(ConstTensorView const& view) {
  return static_cast<std::size_t>(view.numel()) * size_of(view.dtype);
}
void check_aligned(std::string_view name, ConstTensorView const& view);
// The elements of a row must be adjacent, so that rows can be moved as bytes.
void check_rows(std::string_view name, ConstTensorView const& view);
// Rows that will be written must not overlap either.
void check_writable_rows(std::string_view name, ConstTensorView const& view);
void check_workers(int num_workers);

}  // namespace switchyard
