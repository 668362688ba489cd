#include "plan/copy_plan.hpp"

#include <algorithm>

#include "layout/receive_block.hpp"

namespace switchyard {

namespace {

// Longer copies gain nothing, and shorter ones leave more of them in flight.
constexpr std::uint32_t most_piece = 4096;
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

PullPlan plan_pull(std::uint32_t row_bytes, int width, std::size_t shared_bytes) {
  if (row_bytes == 0 || row_bytes % 16 != 0) return {};
  constexpr std::uint32_t most = pull_lanes * 16;
  constexpr int fewest_stages = 2;
  std::uint32_t const pieces = (row_bytes + most - 1) / most;
  PullPlan plan{.piece = static_cast<std::uint32_t>(align_up((row_bytes + pieces - 1) / pieces, 16)),
                .rows = std::clamp(width, 1, most_rows_together)};
  std::size_t const stage_bytes = static_cast<std::size_t>(plan.rows) * plan.piece;
  std::size_t const stages = shared_bytes / pull_teams / stage_bytes;
  if (stages < fewest_stages) return {};
  plan.stages = static_cast<int>(std::min<std::size_t>(stages, most_pull_stages));
  return plan;
}

}  // namespace switchyard
