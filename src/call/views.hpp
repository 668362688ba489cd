// Checks of one tensor that the caller passed. All throw InvalidArgument, naming it, what was expected and what was
// seen.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "switchyard/tensor.hpp"

namespace switchyard {

// Extent that may be anything.
inline constexpr std::int64_t any = -1;

void check_dtype(std::string_view name, ConstTensorView const& view, std::initializer_list<DType> allowed);
// On the engine's device, and of these extents.
void check_shape(std::string_view name, ConstTensorView const& view, std::initializer_list<std::int64_t> expected,
                 Device device);
void check_aligned(std::string_view name, ConstTensorView const& view);
// Elements of a row adjacent, so that rows can be moved as bytes.
void check_rows(std::string_view name, ConstTensorView const& view);
// Rows that do not overlap: for what is written.
void check_writable_rows(std::string_view name, ConstTensorView const& view);
void check_workers(int num_workers);

}  // namespace switchyard
