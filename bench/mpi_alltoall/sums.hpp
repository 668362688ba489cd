// Weighted sums of rows, in loops that compilers turn into vector instructions.
#pragma once

#include <cstdint>

#include "bf16.hpp"

namespace mpi_alltoall {

// Columns that are summed at once: the sums stay in the first-level cache.
inline constexpr std::int64_t sum_block = 1024;

inline void set_product(float* __restrict sums, std::uint16_t const* __restrict row, float weight,
                        std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sums[i] = weight * to_float(row[i]);
}

inline void add_product(float* __restrict sums, std::uint16_t const* __restrict row, float weight,
                        std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) sums[i] += weight * to_float(row[i]);
}

inline void round_to(std::uint16_t* __restrict out, float const* __restrict sums, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = to_bf16(sums[i]);
}

}  // namespace mpi_alltoall
