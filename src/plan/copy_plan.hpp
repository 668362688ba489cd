// How the CUDA engine cuts rows into pieces that travel through shared memory. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard {

struct CopyPlan {
  std::uint32_t piece = 0;  // bytes, a multiple of 16
  int stages = 0;           // pieces in flight of a warp; 0: rows cannot travel this way
  int warps = 0;            // that move rows, a block
};

// `row_bytes`: a multiple of 16. `shared_bytes`: of a block.
CopyPlan plan_copies(std::uint32_t row_bytes, std::size_t shared_bytes);

}  // namespace switchyard
