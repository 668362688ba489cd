// bf16 as 16 bits, converted by integer arithmetic that compilers turn into vector instructions.
#pragma once

#include <bit>
#include <cstdint>

namespace mpi_alltoall {

inline float to_float(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16U);
}

// To nearest, ties to even; the program has no NaN.
inline std::uint16_t to_bf16(float value) {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

}  // namespace mpi_alltoall
