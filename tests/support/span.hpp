// How much memory a strided view takes.
#pragma once

#include <cstddef>

#include "switchyard/tensor.hpp"

namespace switchyard::test {

inline std::size_t span_bytes(ConstTensorView const& view) {
  if (view.numel() == 0) return 0;
  std::int64_t last = 0;
  for (int dim = 0; dim < view.ndim; ++dim) last += (view.size(dim) - 1) * view.stride(dim);
  return static_cast<std::size_t>(last + 1) * size_of(view.dtype);
}

}  // namespace switchyard::test
