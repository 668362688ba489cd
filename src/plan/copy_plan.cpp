#include "plan/copy_plan.hpp"

#include <algorithm>

#include "layout/receive_block.hpp"
#include "plan/sm_figures.hpp"

namespace switchyard {

namespace {

// Longer copies gain nothing, and shorter ones leave more of them in flight.
constexpr std::uint32_t most_piece = 4096;
constexpr int usual_stages = 4;
constexpr int most_warps = 12;
// Two stages of a ring hold what is being stored; the others hold what is on its way from memory.
constexpr int storing_stages = 2;
// With fewer a block has no warp to load while the others store.
constexpr std::int64_t fewest_warps = 4;

// Narrows a plan to as many pieces on their way as make `loads` bytes: by rings of one such piece for each warp, or
// of two where that takes more warps than there are.
CopyPlan narrowed(CopyPlan plan, std::size_t loads) {
  auto const pieces =
      std::max(static_cast<std::int64_t>((loads + plan.piece / 2) / plan.piece), std::int64_t{fewest_warps});
  int const ahead = pieces > most_warps ? usual_stages - storing_stages : 1;
  plan.stages = storing_stages + ahead;
  plan.warps = static_cast<int>(std::min<std::int64_t>((pieces + ahead - 1) / ahead, plan.warps));
  return plan;
}

}  // namespace

// While SMs are the limit, each takes what it can get. Once memory is, more loads are not served sooner: they
// queue, and not evenly, so that some blocks end early. With SMs for no more than twice what memory takes, those
// that are left then cannot use what the others leave. So loads are bounded by what memory can bring in the time
// that a load takes.
std::size_t enough_loads(SmProblem const& problem, int num_sms) {
  bool const few = problem.max_tokens < std::int64_t{2} * most_warps * num_sms;  // memory has no time to fill
  if (few || problem.ranks_per_gpu != problem.num_ranks) return 0;  // a link is slower, and farther, than memory
  double const blocks = static_cast<double>(problem.ranks_per_gpu) * num_sms;
  double const rate = problem.rates.memory * figures::dispatch.memory_share;
  double const asked = blocks * figures::dispatch.sm_rate / rate;
  if (asked < 1 || asked > figures::most_crowded) return 0;
  // For each row that it reads, a dispatch writes one to every rank that the token goes to.
  double const written = ranks_per_token(problem.num_ranks, problem.top_k, problem.num_experts);
  return static_cast<std::size_t>(rate / (1 + written) * figures::load_seconds / blocks);
}

CopyPlan plan_copies(std::uint32_t row_bytes, std::size_t shared_bytes, std::size_t loads) {
  if (row_bytes == 0 || row_bytes % 16 != 0) return {.piece = 0, .stages = 0, .warps = most_warps};
  std::uint32_t const pieces = (row_bytes + most_piece - 1) / most_piece;
  auto const piece = static_cast<std::uint32_t>(align_up((row_bytes + pieces - 1) / pieces, 16));
  auto const rings = static_cast<int>(shared_bytes / (static_cast<std::size_t>(usual_stages) * piece));
  if (rings < 1) return {.piece = 0, .stages = 0, .warps = most_warps};
  CopyPlan const widest{.piece = piece, .stages = usual_stages, .warps = std::min(rings, most_warps)};
  return loads > 0 ? narrowed(widest, loads) : widest;
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
