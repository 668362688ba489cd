// The model behind the default of num_sms: against measurements, and by its properties.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "layout/experts.hpp"
#include "plan/sm_plan.hpp"
#include "support/check.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

constexpr std::size_t h200_bytes = 150'754'820'096;
constexpr std::int64_t bf16_row = 7168 * 2;
constexpr std::int64_t fp8_row = 7168 + 7168 / 128 * 4;

// The shape of the measurements: all ranks share one H200.
SmProblem on_one_h200(int ranks, std::int64_t tokens = 4096, std::int64_t row_bytes = bf16_row) {
  return {.sms = 132,
          .ranks_per_gpu = ranks,
          .num_ranks = ranks,
          .rates = gpu_rates(9, 0, h200_bytes),
          .row_bytes = row_bytes,
          .max_tokens = tokens,
          .top_k = 8,
          .num_experts = 256};
}

SmProblem each_its_own(int ranks, double link) {
  SmProblem problem = on_one_h200(ranks);
  problem.ranks_per_gpu = 1;
  problem.rates.link = link;
  return problem;
}

SmProblem random_problem(Random& random) {
  int const sharers = random.between(1, 8);
  return {.sms = random.between(1, 200),
          .ranks_per_gpu = sharers,
          .num_ranks = sharers * random.between(1, 8),
          .rates = {.memory = random.between(1, 100) * 1e11, .link = random.between(0, 90) * 1e10},
          .row_bytes = random.between(1, 1 << 16),
          .max_tokens = random.between(1, 1 << random.between(0, 16)),
          .top_k = random.between(1, 64),
          .num_experts = random.between(1, 512)};
}

testing::Message what(SmProblem const& p) {
  return testing::Message() << "sms " << p.sms << " ranks_per_gpu " << p.ranks_per_gpu << " world " << p.num_ranks
                            << " memory " << p.rates.memory << " link " << p.rates.link << " row_bytes "
                            << p.row_bytes << " max_tokens " << p.max_tokens << " top_k " << p.top_k
                            << " num_experts " << p.num_experts;
}

template <typename Visit>
void for_random_problems(Visit&& visit) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(fresh_seed());
  for (int i = 0; i < 500 && !testing::Test::HasFailure(); ++i) {
    SmProblem const problem = random_problem(random);
    SCOPED_TRACE(what(problem));
    visit(problem);
  }
}

bool reaches_95_percent(SmProblem const& problem, int num_sms) {
  CallTimes const best = call_times(problem, problem.sms / problem.ranks_per_gpu);
  CallTimes const times = call_times(problem, num_sms);
  return best.dispatch / times.dispatch >= 0.95 && best.combine / times.combine >= 0.95;
}

// Two H100s of 80 GB, one rank each, linked by NVLink.
SmProblem on_two_h100s(std::int64_t tokens, std::int64_t row_bytes) {
  SmProblem problem = on_one_h200(2, tokens, row_bytes);
  problem.ranks_per_gpu = 1;
  problem.rates = gpu_rates(9, 0, 85'000'000'000);
  return problem;
}

// Whole calls, in microseconds; docs/tuning.md has the same table. 0: not measured. 8 and 4 ranks share one H200; 2
// have an H100 each.
struct Measured {
  int ranks;
  int num_sms;
  std::int64_t tokens;
  std::int64_t dispatch_row;
  double dispatch;
  double combine;  // of BF16 rows
};

constexpr Measured measured[] = {
    {8, 16, 4096, bf16_row, 860, 725}, {8, 8, 4096, bf16_row, 863, 918},  {8, 4, 4096, bf16_row, 1418, 1775},
    {4, 24, 4096, bf16_row, 316, 294}, {8, 16, 4096, fp8_row, 472, 0},    {8, 16, 128, fp8_row, 46, 48},
    {2, 8, 4096, bf16_row, 325, 637},  {2, 16, 4096, bf16_row, 218, 334}, {2, 24, 4096, bf16_row, 236, 235},
    {2, 32, 4096, bf16_row, 218, 232}, {2, 48, 4096, bf16_row, 206, 233}, {2, 64, 4096, bf16_row, 197, 215},
};

SmProblem problem_of(Measured const& m, std::int64_t row_bytes) {
  return m.ranks == 2 ? on_two_h100s(m.tokens, row_bytes) : on_one_h200(m.ranks, m.tokens, row_bytes);
}

TEST(SmPlan, IsWithin20PercentOfEachMeasurement) {
  for (Measured const& m : measured) {
    SCOPED_TRACE(testing::Message() << m.ranks << " ranks x " << m.num_sms << " SMs, " << m.tokens
                                    << " tokens, rows of " << m.dispatch_row);
    double const dispatch = call_times(problem_of(m, m.dispatch_row), m.num_sms).dispatch * 1e6;
    double const combine = call_times(problem_of(m, bf16_row), m.num_sms).combine * 1e6;
    EXPECT_NEAR(dispatch, m.dispatch, 0.2 * m.dispatch);
    if (m.combine > 0) {
      EXPECT_NEAR(combine, m.combine, 0.2 * m.combine);
    }
  }
}

TEST(SmPlan, TakesNoMoreThanFitOntoTheGpuTogether) {
  for_random_problems([](SmProblem const& problem) {
    int const num_sms = default_sms(problem);
    EXPECT_GE(num_sms, 1);
    if (problem.sms >= problem.ranks_per_gpu) {
      EXPECT_LE(num_sms * problem.ranks_per_gpu, problem.sms);
    } else {
      EXPECT_EQ(num_sms, 1);
    }
  });
}

TEST(SmPlan, ReachesNineteenTwentiethsAndWouldNotWithOneSmLess) {
  for_random_problems([](SmProblem const& problem) {
    if (problem.sms < problem.ranks_per_gpu) return;
    int const num_sms = default_sms(problem);
    EXPECT_TRUE(reaches_95_percent(problem, num_sms));
    if (num_sms > 1) {
      EXPECT_FALSE(reaches_95_percent(problem, num_sms - 1));
    }
  });
}

TEST(SmPlan, MoreSmsNeverTakeLonger) {
  for_random_problems([](SmProblem const& problem) {
    CallTimes before = call_times(problem, 1);
    for (int num_sms = 2; num_sms <= problem.sms; ++num_sms) {
      CallTimes const times = call_times(problem, num_sms);
      EXPECT_TRUE(std::isfinite(times.dispatch) && times.dispatch > 0);
      EXPECT_LE(times.dispatch, before.dispatch);
      EXPECT_LE(times.combine, before.combine);
      before = times;
    }
  });
}

TEST(SmPlan, MoreWorkNeverTakesLess) {
  for_random_problems([](SmProblem const& problem) {
    int const num_sms = default_sms(problem);
    CallTimes const times = call_times(problem, num_sms);
    for (auto const member : {&SmProblem::row_bytes, &SmProblem::max_tokens}) {
      SmProblem larger = problem;
      larger.*member *= 2;
      EXPECT_GE(call_times(larger, num_sms).dispatch, times.dispatch);
      EXPECT_GE(call_times(larger, num_sms).combine, times.combine);
    }
  });
}

TEST(SmPlan, FewerRanksOnAGpuTakeMoreSmsEach) {
  EXPECT_LT(default_sms(on_one_h200(8)), default_sms(on_one_h200(4)));
  EXPECT_LT(default_sms(on_one_h200(4)), default_sms(on_one_h200(2)));
}

TEST(SmPlan, SmallMessagesTakeFewSms) {
  int before = default_sms(on_one_h200(4));
  for (std::int64_t tokens = 2048; tokens >= 1; tokens /= 2) {
    int const num_sms = default_sms(on_one_h200(4, tokens));
    EXPECT_LE(num_sms, before) << tokens << " tokens";
    EXPECT_LE(num_sms, tokens) << "a token is one SM's";
    before = num_sms;
  }
  EXPECT_LE(default_sms(on_one_h200(4, 8)), default_sms(on_one_h200(4)) / 4);
}

TEST(SmPlan, SmsBeyondTheTokensMoveNothing) {
  SmProblem const problem = on_one_h200(4, 8);
  EXPECT_LT(call_times(problem, 8).combine, call_times(problem, 7).combine);
  EXPECT_EQ(call_times(problem, 9).combine, call_times(problem, 8).combine);
  EXPECT_EQ(call_times(problem, 33).dispatch, call_times(problem, 8).dispatch);
}

TEST(SmPlan, ASlowerLinkTakesFewerSms) {
  int before = default_sms(each_its_own(8, 0));
  for (int gigabytes = 1024; gigabytes >= 1; gigabytes /= 2) {
    int const num_sms = default_sms(each_its_own(8, gigabytes * 1e9));
    EXPECT_LE(num_sms, before) << gigabytes << " GB/s";
    before = num_sms;
  }
  EXPECT_LT(default_sms(each_its_own(8, 450e9)), default_sms(each_its_own(8, 0)));
  EXPECT_LT(default_sms(each_its_own(8, 25e9)), default_sms(each_its_own(8, 450e9)));
}

TEST(SmPlan, ALinkDoesNotMatterToRanksOfOneGpu) {
  SmProblem problem = on_one_h200(8);
  CallTimes const times = call_times(problem, 16);
  problem.rates.link = 1;
  EXPECT_EQ(call_times(problem, 16).dispatch, times.dispatch);
  EXPECT_EQ(call_times(problem, 16).combine, times.combine);
}

// By looking at every choice of experts.
double counted_ranks_per_token(int world, int top_k, int num_experts) {
  ExpertSplit const experts(num_experts, world);
  std::int64_t choices = 0;
  std::int64_t ranks = 0;
  for (std::uint32_t chosen = 0; chosen < 1U << num_experts; ++chosen) {
    if (std::popcount(chosen) != std::min(top_k, num_experts)) continue;
    std::uint32_t hit = 0;
    for (int expert = 0; expert < num_experts; ++expert) {
      if ((chosen >> expert & 1U) != 0) hit |= 1U << experts.rank_of(expert);
    }
    ++choices;
    ranks += std::popcount(hit);
  }
  return static_cast<double>(ranks) / static_cast<double>(choices);
}

TEST(SmPlan, KnowsHowManyRanksATokenGoesTo) {
  for (int world : {1, 2, 3, 5, 8}) {
    for (int num_experts : {1, 2, 4, 7, 10}) {
      for (int top_k : {1, 2, 3, 8, 12}) {
        EXPECT_NEAR(ranks_per_token(world, top_k, num_experts), counted_ranks_per_token(world, top_k, num_experts),
                    1e-9)
            << "world " << world << " top_k " << top_k << " num_experts " << num_experts;
      }
    }
  }
  // Of many experts it hardly matters that none is drawn twice.
  EXPECT_NEAR(ranks_per_token(8, 8, 1 << 20), 8 * (1 - std::pow(7.0 / 8, 8)), 1e-3);
}

TEST(GpuRates, AreKnownForEveryGpu) {
  for (int major = 1; major < 20; ++major) {
    for (int minor = 0; minor < 10; ++minor) {
      for (std::size_t bytes : {std::size_t{0}, std::size_t{1} << 34U, std::size_t{1} << 37U, ~std::size_t{0}}) {
        GpuRates const rates = gpu_rates(major, minor, bytes);
        EXPECT_GT(rates.memory, 1e11);
        EXPECT_GT(rates.link, 1e9);
      }
    }
  }
}

TEST(GpuRates, TellBoardsOfOneCapabilityApart) {
  std::size_t const h100_bytes = 85'520'809'984;
  EXPECT_LT(gpu_rates(9, 0, h100_bytes).memory, gpu_rates(9, 0, h200_bytes).memory);
  // A newer GPU with little memory is not taken for an older one with much.
  EXPECT_GE(gpu_rates(10, 0, h100_bytes).memory, gpu_rates(9, 0, h200_bytes).memory);
}

}  // namespace
}  // namespace switchyard::test
