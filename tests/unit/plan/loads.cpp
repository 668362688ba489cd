// How much a dispatch should have on its way from memory: against measurements, and by what it means.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>

#include "plan/copy_plan.hpp"
#include "plan/sm_figures.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t shared_bytes = 227 * 1024;
constexpr std::uint32_t row_of_fp8 = 7168;
constexpr std::uint32_t row_of_bf16 = 2 * row_of_fp8;

// Ranks that share an H200, as they were measured (bench/results/2026-11-30-gpu.md).
SmProblem sharing_one_h200(int ranks, std::int64_t tokens = 4096) {
  return {.sms = 132,
          .ranks_per_gpu = ranks,
          .num_ranks = ranks,
          .rates = gpu_rates(9, 0, 150'754'820'096),
          .row_bytes = row_of_bf16,
          .max_tokens = tokens,
          .top_k = 8,
          .num_experts = 256};
}

CopyPlan plan_sharing_h200(int ranks, int num_sms, std::uint32_t row_bytes) {
  return plan_copies(row_bytes, shared_bytes, enough_loads(sharing_one_h200(ranks), num_sms));
}

// What was fastest, or within 2 % of it, of all that was measured.
TEST(EnoughLoads, LeadsToTheFastestPlans) {
  struct Best {
    int ranks;
    int num_sms;
    int warps;  // with one piece of a row on its way in each
  };
  for (Best const& best :
       {Best{8, 7, 6}, Best{8, 8, 6}, Best{8, 9, 5}, Best{8, 10, 4}, Best{8, 11, 4}, Best{8, 12, 4}, Best{4, 16, 8},
        Best{4, 20, 6}, Best{4, 24, 5}, Best{4, 26, 5}, Best{2, 48, 8}}) {
    for (std::uint32_t const row_bytes : {row_of_fp8, row_of_bf16}) {
      CopyPlan const plan = plan_sharing_h200(best.ranks, best.num_sms, row_bytes);
      EXPECT_EQ(plan.stages, 3) << best.ranks << " ranks x " << best.num_sms;
      EXPECT_EQ(plan.warps, best.warps) << best.ranks << " ranks x " << best.num_sms;
    }
  }
}

// While SMs are the limit, and where they are in plenty, bounds were slower or no faster.
TEST(EnoughLoads, AreAsManyAsFitWhereBoundsDoNotHelp) {
  struct Free {
    int ranks;
    int num_sms;
  };
  for (Free const& free : {Free{8, 4}, Free{8, 6}, Free{4, 10}, Free{4, 12}, Free{2, 16}, Free{2, 24}, Free{8, 16},
                           Free{4, 32}, Free{2, 64}})
    EXPECT_EQ(enough_loads(sharing_one_h200(free.ranks), free.num_sms), 0U)
        << free.ranks << " ranks x " << free.num_sms;
  EXPECT_EQ(enough_loads(sharing_one_h200(8, 128), 8), 0U) << "few tokens";
  SmProblem linked = sharing_one_h200(8);
  linked.ranks_per_gpu = 4;
  EXPECT_EQ(enough_loads(linked, 24), 0U) << "rows that pass a link";
}

// All blocks together have as many on their way, whatever their number; more destinations leave memory for fewer.
TEST(EnoughLoads, DependOnWhatMemoryCanBring) {
  for (int ranks = 2; ranks <= 8; ++ranks) {
    SmProblem const problem = sharing_one_h200(ranks);
    double before = 0;
    for (int num_sms = 1; num_sms * ranks <= problem.sms; ++num_sms) {
      auto const all = static_cast<double>(enough_loads(problem, num_sms)) * ranks * num_sms;
      if (all == 0) continue;
      if (before > 0) {
        EXPECT_NEAR(all, before, ranks * num_sms) << ranks << " ranks x " << num_sms;
      }
      EXPECT_LT(all, problem.rates.memory * figures::load_seconds / (1 + 1));
      before = all;
    }
    EXPECT_GT(before, 0) << ranks;
  }
}

}  // namespace
}  // namespace switchyard::test
