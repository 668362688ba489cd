#include "plan/copy_plan.hpp"

#include <algorithm>

#include "layout/receive_block.hpp"

namespace switchyard {

namespace {

// Longer copies gain nothing, and shorter ones leave more of them in flight.
constexpr std::uint32_t most_piece = 8192;
constexpr int usual_stages = 4;
constexpr int most_warps = 12;

}  // namespace

CopyPlan plan_copies(std::uint32_t row_bytes, std::size_t shared_bytes) {
  if (row_bytes == 0 || row_bytes % 16 != 0) return {.piece = 0, .stages = 0, .warps = most_warps};
  std::uint32_t const pieces = (row_bytes + most_piece - 1) / most_piece;
  auto const piece = static_cast<std::uint32_t>(align_up((row_bytes + pieces - 1) / pieces, 16));
  auto const rings = static_cast<int>(shared_bytes / (static_cast<std::size_t>(usual_stages) * piece));
  if (rings < 1) return {.piece = 0, .stages = 0, .warps = most_warps};
  return {.piece = piece, .stages = usual_stages, .warps = std::min(rings, most_warps)};
}

}  // namespace switchyard
