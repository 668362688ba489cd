// How ranks wait follows from whether each has a core.
#include <gtest/gtest.h>

#include "plan/buffer_plan.hpp"

namespace switchyard {
namespace {

using std::chrono::microseconds;

BufferPlan plan_for(int ranks, int cores, std::int64_t spin_us) {
  BufferOptions const options{.max_tokens = 8, .hidden = 64, .num_experts = 8, .top_k = 2};
  return plan_buffer(options, {.num_ranks = ranks, .local_ranks = ranks, .cores = cores}, spin_us);
}

TEST(Waiting, GivesTheCoreAwayWhereThereIsNoneForEachRank) {
  EXPECT_FALSE(plan_for(8, 8, -1).yields);
  EXPECT_TRUE(plan_for(8, 7, -1).yields);
  EXPECT_GT(plan_for(8, 7, -1).spin, plan_for(8, 8, -1).spin);
}

TEST(Waiting, StaysAwakeAsLongAsIsSaid) {
  EXPECT_EQ(plan_for(8, 2, 70).spin, microseconds{70});
  EXPECT_EQ(plan_for(8, 2, 0).spin, microseconds{0});
  EXPECT_EQ(plan_for(2, 2, 70).spin, microseconds{70});
}

}  // namespace
}  // namespace switchyard
