// The widest access to rows that all their addresses and sizes allow.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard::cuda {

// Bytes: 16, 4 or 1. Of rows that begin at `data`, `stride` bytes apart.
inline int width_of(void const* data, std::int64_t stride, std::size_t bytes) {
  auto const all = reinterpret_cast<std::uintptr_t>(data) | static_cast<std::uintptr_t>(stride) | bytes;
  return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : 1;
}

}  // namespace switchyard::cuda
