// Rows of tensors, as the copy engine sees them.
#pragma once

#include <cstdint>

#include "call/rows.hpp"

namespace switchyard::cuda {

// Does the copy engine take such rows?
inline bool suits_bulk_copies(void const* rows, std::int64_t stride, std::uint32_t bytes) {
  return reinterpret_cast<std::uintptr_t>(rows) % 16 == 0 && stride % 16 == 0 && bytes % 16 == 0;
}

}  // namespace switchyard::cuda
