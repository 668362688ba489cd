// How rows are cut into pieces that travel through shared memory: by the properties that the kernels rely on.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "layout/device_control.hpp"
#include "plan/copy_plan.hpp"
#include "support/check.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

// What a block of compute capability 9.0 can have.
constexpr std::size_t h100_shared = 227 * 1024;
// The kernel loads a piece two turns before it is stored, and stores of the turn before are still under way.
constexpr int fewest_stages = 3;
// Two stages hold what is being stored, so they bring nothing.
constexpr int storing_stages = 2;
constexpr std::size_t as_many_as_fit = 0;
constexpr std::size_t some_loads[] = {as_many_as_fit, 1, 4096, 18000, 18001, 50000, 1 << 20};

std::size_t on_their_way(CopyPlan const& plan) {
  return static_cast<std::size_t>(plan.stages - storing_stages) * static_cast<std::size_t>(plan.warps) * plan.piece;
}

void check_piece(CopyPlan const& plan, std::uint32_t row_bytes) {
  ASSERT_GT(plan.piece, 0U);
  EXPECT_EQ(plan.piece % 16, 0U);
  EXPECT_LE(plan.piece, row_bytes) << "bytes past the row";
  std::uint32_t const pieces = (row_bytes + plan.piece - 1) / plan.piece;
  std::uint32_t const last = row_bytes - (pieces - 1) * plan.piece;
  EXPECT_EQ(last % 16, 0U);
  // Even pieces: rounding each up to 16 bytes is all that the last may lack.
  EXPECT_LE(plan.piece - last, 16 * pieces);
}

void check_rings(CopyPlan const& plan, std::size_t shared_bytes) {
  EXPECT_GE(plan.stages, fewest_stages);
  EXPECT_GE(plan.warps, 1);
  EXPECT_LE(static_cast<std::size_t>(plan.warps) * plan.stages * plan.piece, shared_bytes);
}

TEST(CopyPlan, FitsEveryRowThatSuits) {
  for (std::uint32_t row_bytes = 16; row_bytes <= 1 << 17; row_bytes += 16) {
    for (std::size_t const loads : some_loads) {
      SCOPED_TRACE(text("row_bytes ", row_bytes, " loads ", loads));
      CopyPlan const plan = plan_copies(row_bytes, h100_shared, loads);
      check_piece(plan, row_bytes);
      check_rings(plan, h100_shared);
      if (HasFailure()) return;
    }
  }
}

TEST(CopyPlan, FitsAnySharedMemoryOrSaysThatItDoesNot) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(fresh_seed());
  for (int i = 0; i < 20000 && !HasFailure(); ++i) {
    auto const row_bytes = static_cast<std::uint32_t>(16 * random.between(1, 1 << random.between(0, 20)));
    auto const shared_bytes = static_cast<std::size_t>(random.between(0, 1 << random.between(0, 20)));
    std::size_t const loads = some_loads[i % std::size(some_loads)];
    SCOPED_TRACE(text("row_bytes ", row_bytes, " shared_bytes ", shared_bytes, " loads ", loads));
    CopyPlan const plan = plan_copies(row_bytes, shared_bytes, loads);
    EXPECT_GE(plan.warps, 1);
    if (plan.stages == 0) continue;
    check_piece(plan, row_bytes);
    check_rings(plan, shared_bytes);
  }
}

TEST(CopyPlan, RowsOfUsualModelsTravelThisWay) {
  for (std::uint32_t hidden : {2048U, 2560U, 4096U, 5120U, 7168U}) {
    EXPECT_GT(plan_copies(hidden, h100_shared, as_many_as_fit).stages, 0) << "FP8, hidden " << hidden;
    EXPECT_GT(plan_copies(2 * hidden, h100_shared, as_many_as_fit).stages, 0) << "BF16, hidden " << hidden;
  }
}

TEST(CopyPlan, MoreSharedMemoryNeverMeansFewerWarps) {
  for (std::uint32_t row_bytes : {16U, 7168U, 8192U, 8208U, 14336U, 65536U}) {
    for (std::size_t const loads : some_loads) {
      int before = 0;
      for (std::size_t shared_bytes = 0; shared_bytes <= 1 << 20; shared_bytes += 1024) {
        CopyPlan const plan = plan_copies(row_bytes, shared_bytes, loads);
        int const moving = plan.stages > 0 ? plan.warps : 0;
        EXPECT_GE(moving, before) << "row_bytes " << row_bytes << " shared_bytes " << shared_bytes;
        before = moving;
      }
      EXPECT_GT(before, 0) << "row_bytes " << row_bytes;
    }
  }
}

// Bulk copies move multiples of 16 bytes. Without a copy engine a block has no shared memory for rings.
TEST(CopyPlan, RowsThatDoNotSuitGoWithoutStagesButNotWithoutWarps) {
  for (std::uint32_t row_bytes : {0U, 1U, 8U, 15U, 17U, 24U, 7170U, 14336U + 8U}) {
    CopyPlan const plan = plan_copies(row_bytes, h100_shared, 18000);
    EXPECT_EQ(plan.stages, 0) << row_bytes;
    EXPECT_EQ(plan.piece, 0U) << row_bytes;
    EXPECT_GE(plan.warps, 1) << row_bytes;
  }
  EXPECT_EQ(plan_copies(14336, 0, as_many_as_fit).stages, 0);
  EXPECT_EQ(plan_copies(14336, 16, as_many_as_fit).stages, 0);
}

// Half a piece more or less, or a whole one where each ring has two on their way. Not fewer than four warps, and
// not more than as many as fit.
TEST(CopyPlan, BringsAsManyBytesAsItIsAskedFor) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(fresh_seed());
  for (int i = 0; i < 5000 && !HasFailure(); ++i) {
    auto const row_bytes = static_cast<std::uint32_t>(16 * random.between(1, 4096));
    auto const loads = static_cast<std::size_t>(random.between(1, 1 << 17));
    SCOPED_TRACE(text("row_bytes ", row_bytes, " loads ", loads));
    CopyPlan const widest = plan_copies(row_bytes, h100_shared, as_many_as_fit);
    CopyPlan const plan = plan_copies(row_bytes, h100_shared, loads);
    EXPECT_EQ(plan.piece, widest.piece);
    EXPECT_GE(plan.warps, std::min(4, widest.warps));
    EXPECT_LE(on_their_way(plan), on_their_way(widest));
    std::size_t const least = std::size_t{4} * plan.piece;
    std::size_t const asked = std::clamp(loads, least, std::max(least, on_their_way(widest)));
    EXPECT_LE(on_their_way(plan), asked + plan.piece + plan.piece / 2);
    EXPECT_GE(on_their_way(plan) + plan.piece, std::min(asked, on_their_way(widest)));
  }
}

// ---- plan_pull ----

constexpr int most_width = 64;  // rows that a token has at most
constexpr int warp_lanes = 32;
// mbarriers count the bytes that they wait for.
constexpr std::size_t most_bytes_of_a_barrier = (1 << 20) - 1;

// Pieces cover the row, no piece is empty, and the copy engine takes each.
void check_cut(std::uint32_t piece, std::uint32_t row_bytes, std::uint32_t most_piece) {
  ASSERT_GT(piece, 0U);
  EXPECT_EQ(piece % 16, 0U);
  EXPECT_LE(piece, most_piece);
  std::uint32_t const pieces = (row_bytes + piece - 1) / piece;
  EXPECT_LT((pieces - 1) * piece, row_bytes) << "the last piece has nothing to copy";
  EXPECT_EQ((row_bytes - (pieces - 1) * piece) % 16, 0U);
}

// Lanes of a warp hold a token's routes, 32 and 32 of them; a stage takes a group that one shuffle can fetch.
void check_groups(PullPlan const& plan, int width) {
  EXPECT_GE(plan.rows, 1);
  EXPECT_LE(plan.rows, most_rows_together);
  for (int first = 0; first < width; first += plan.rows) {
    int const last = std::min(first + plan.rows, width) - 1;
    EXPECT_EQ(first / warp_lanes, last / warp_lanes) << "rows " << first << " to " << last << " are in both halves";
  }
  if (width > plan.rows) {
    EXPECT_EQ(warp_lanes % plan.rows, 0);
  }
}

void check_pull(PullPlan const& plan, std::uint32_t row_bytes, int width, std::size_t shared_bytes) {
  check_cut(plan.piece, row_bytes, pull_lanes * 16);
  check_groups(plan, width);
  EXPECT_GE(plan.stages, 2) << "one to fill while the other is summed up";
  EXPECT_LE(plan.stages, most_pull_stages);
  EXPECT_LE(pull_teams * plan.ring_bytes(), shared_bytes);
  EXPECT_LE(static_cast<std::size_t>(plan.rows) * plan.piece, most_bytes_of_a_barrier);
}

TEST(PullPlan, FitsEveryRowThatSuits) {
  for (std::uint32_t row_bytes = 16; row_bytes <= 1 << 16; row_bytes += 16) {
    for (int width : {1, 2, 3, 7, 8, 9, 31, 32, 33, most_width}) {
      SCOPED_TRACE(text("row_bytes ", row_bytes, " width ", width));
      check_pull(plan_pull(row_bytes, width, h100_shared), row_bytes, width, h100_shared);
      if (HasFailure()) return;
    }
  }
}

TEST(PullPlan, FitsAnySharedMemoryOrSaysThatItDoesNot) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(fresh_seed());
  for (int i = 0; i < 20000 && !HasFailure(); ++i) {
    auto const row_bytes = static_cast<std::uint32_t>(16 * random.between(1, 1 << random.between(0, 20)));
    auto const width = static_cast<int>(random.between(0, most_width));
    auto const shared_bytes = static_cast<std::size_t>(random.between(0, 1 << random.between(0, 20)));
    SCOPED_TRACE(text("row_bytes ", row_bytes, " width ", width, " shared_bytes ", shared_bytes));
    PullPlan const plan = plan_pull(row_bytes, width, shared_bytes);
    if (plan.stages > 0) {
      check_pull(plan, row_bytes, width, shared_bytes);
    } else {
      EXPECT_EQ(plan.ring_bytes(), 0U);
    }
  }
}

TEST(PullPlan, GroupsNeverStraddleTheHalvesOfAWarpsRoutes) {
  for (int width = 1; width <= most_width; ++width) {
    SCOPED_TRACE(text("width ", width));
    PullPlan const plan = plan_pull(14336, width, h100_shared);
    check_groups(plan, width);
    EXPECT_EQ(plan.rows, std::min(width, most_rows_together)) << "all rows of a token travel together if they can";
  }
}

TEST(PullPlan, MoreSharedMemoryNeverMeansFewerStages) {
  for (std::uint32_t row_bytes : {16U, 7168U, 8192U, 8208U, 14336U, 65536U}) {
    int before = 0;
    for (std::size_t shared_bytes = 0; shared_bytes <= 1 << 20; shared_bytes += 1024) {
      int const stages = plan_pull(row_bytes, 8, shared_bytes).stages;
      EXPECT_GE(stages, before) << "row_bytes " << row_bytes << " shared_bytes " << shared_bytes;
      before = stages;
    }
    EXPECT_GT(before, 0) << "row_bytes " << row_bytes;
  }
}

TEST(PullPlan, RowsThatDoNotSuitGoWithoutStages) {
  for (std::uint32_t row_bytes : {0U, 1U, 8U, 15U, 17U, 24U, 7170U, 14336U + 8U}) {
    EXPECT_EQ(plan_pull(row_bytes, 8, h100_shared).stages, 0) << row_bytes;
  }
  EXPECT_EQ(plan_pull(14336, 8, 0).stages, 0);
  EXPECT_EQ(plan_pull(14336, 8, 16).stages, 0);
}

}  // namespace
}  // namespace switchyard::test
