// Cuts rows into the pieces in which the CUDA engine moves them through shared memory. Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plan/sm_plan.hpp"

namespace switchyard {

struct CopyPlan {
  std::uint32_t piece = 0;  // bytes, a multiple of 16
  int stages = 0;           // pieces that a warp has in flight; 0: rows cannot travel this way
  int warps = 0;            // warps of a block that move rows
};

// Bytes that a block of a dispatch should have on their way from memory, when each rank dispatches `max_tokens` on
// `num_sms` SMs; 0: as many as fit.
std::size_t enough_loads(SmProblem const& problem, int num_sms);

// `row_bytes`: a multiple of 16. `shared_bytes`: what a block has. `loads`: as enough_loads() returns.
CopyPlan plan_copies(std::uint32_t row_bytes, std::size_t shared_bytes, std::size_t loads);

// A combine pulls rows in teams. Each team of a block has a ring of its own, whose stages hold pieces of several
// rows of one token. `pull_lanes` lanes of a team sum, 16 bytes of a piece each.
inline constexpr int pull_teams = 2;
inline constexpr int pull_lanes = 256;
inline constexpr int most_rows_together = 8;
inline constexpr int most_pull_stages = 16;

struct PullPlan {
  std::uint32_t piece = 0;  // bytes, a multiple of 16
  int rows = 0;             // rows of a token in a stage
  int stages = 0;           // stages of a team's ring; 0: rows cannot travel this way

  [[nodiscard]] constexpr std::size_t ring_bytes() const noexcept {
    return static_cast<std::size_t>(stages) * static_cast<std::size_t>(rows) * piece;
  }
};

// `width`: the most rows that a token has. `shared_bytes`: what a block has.
PullPlan plan_pull(std::uint32_t row_bytes, int width, std::size_t shared_bytes);

}  // namespace switchyard
