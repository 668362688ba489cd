// What is fitted to timed calls: against a machine that the test makes up, by a formula of its own.
#include "plan/simulator/calibration.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "plan/simulator/simulate.hpp"
#include "support/random.hpp"
#include "switchyard/error.hpp"

namespace switchyard::simulator {
namespace {

using test::Random;
using testing::HasSubstr;

// One operation of a machine: microseconds of no bytes, and GB/s in caches and in memory.
struct Truth {
  double fixed_us = 0;
  double cached_gbs = 0;
  double memory_gbs = 0;
  double bytes_per_token = 0;
};

// Of the bytes of a call, the share bytes / (bytes + caches) finds no place in caches.
double true_us(Truth const& truth, double cache_bytes, double tokens) {
  double const bytes = truth.bytes_per_token * tokens;
  double const missing = bytes * bytes / (bytes + cache_bytes);
  return truth.fixed_us + (bytes - missing) / truth.cached_gbs / 1e3 + missing / truth.memory_gbs / 1e3;
}

// Near the normal distribution, of variance 1.
double normal(Random& random) {
  double sum = 0;
  for (int i = 0; i < 12; ++i) sum += static_cast<double>(random.below(1 << 20)) / (1 << 20);
  return sum - 6;
}

std::vector<TimedCall> timed(Truth const& truth, double cache_bytes, std::vector<std::int64_t> const& counts,
                             int runs, double noise, Random& random) {
  std::vector<TimedCall> calls;
  for (int run = 0; run < runs; ++run)
    for (std::int64_t const tokens : counts) {
      auto const count = static_cast<double>(tokens);
      calls.push_back({.tokens = tokens,
                       .bytes = truth.bytes_per_token * count,
                       .us = true_us(truth, cache_bytes, count) * std::exp(noise * normal(random))});
    }
  return calls;
}

double predicted(ModeFit const& fit, OperationFit const& of, double bytes) {
  double const share = bytes > 0 ? bytes / (bytes + fit.cache_bytes) : 0;
  return of.figures.fixed_us +
         bytes * 1e6 * ((1 - share) / of.figures.cached_rate + share / of.figures.memory_rate);
}

constexpr Truth dispatch_truth{.fixed_us = 40, .cached_gbs = 90, .memory_gbs = 30, .bytes_per_token = 376e3};
constexpr Truth combine_truth{.fixed_us = 20, .cached_gbs = 120, .memory_gbs = 40, .bytes_per_token = 720e3};
constexpr double caches = 30e6;

TEST(Calibration, FindsAMachineWithoutNoise) {
  Random random(1);
  std::vector<std::int64_t> const counts{0, 4, 16, 64, 256, 1024};
  auto const fit = fit_mode("throughput", timed(dispatch_truth, caches, counts, 1, 0, random),
                            timed(combine_truth, caches, counts, 1, 0, random));
  EXPECT_NEAR(fit.cache_bytes / caches, 1, 0.1);
  for (auto const& [truth, of] :
       {std::pair{dispatch_truth, &fit.dispatch}, std::pair{combine_truth, &fit.combine}}) {
    EXPECT_NEAR(of->figures.fixed_us, truth.fixed_us, 0.02 * truth.fixed_us);
    EXPECT_NEAR(of->figures.memory_rate / 1e9, truth.memory_gbs, 0.05 * truth.memory_gbs);
    EXPECT_NEAR(of->figures.cached_rate / 1e9, truth.cached_gbs, 0.1 * truth.cached_gbs);
    EXPECT_GT(of->figures.spread, 0) << "a perfect fit promises no perfect measurement";
    ASSERT_EQ(of->residuals.size(), counts.size());
    for (auto const& residual : of->residuals) EXPECT_NEAR(residual.error, 0, 0.02) << residual.tokens;
  }
}

// A machine of one rate does not get two.
TEST(Calibration, OneRateIsEnoughWhereTwoSayNoMore) {
  Random random(2);
  std::vector<std::int64_t> const counts{0, 16, 256, 1024};
  Truth const out{.fixed_us = 15, .cached_gbs = 50, .memory_gbs = 50, .bytes_per_token = 1e5};
  Truth const back{.fixed_us = 9, .cached_gbs = 70, .memory_gbs = 70, .bytes_per_token = 2e5};
  auto const fit = fit_mode("latency", timed(out, 1, counts, 1, 0, random), timed(back, 1, counts, 1, 0, random));
  EXPECT_NEAR(fit.dispatch.figures.cached_rate, fit.dispatch.figures.memory_rate, 1e6);
  EXPECT_NEAR(fit.dispatch.figures.memory_rate / 1e9, 50, 0.5);
  EXPECT_NEAR(fit.combine.figures.memory_rate / 1e9, 70, 0.7);
}

// Machines, noise and counts as they come: nine of ten new measurements between the counts lie in the interval.
TEST(Calibration, IntervalsHoldWhatWasNotTimed) {
  constexpr std::uint64_t seed = 20261130;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Random random(seed);
  int held = 0;
  int all = 0;
  for (int machine = 0; machine < 60; ++machine) {
    double const noise = random.between(2, 20) / 100.0;
    double const cache_bytes = random.between(5, 200) * 1e6;
    auto const draw = [&] {
      double const memory = random.between(5, 60);
      return Truth{.fixed_us = static_cast<double>(random.between(5, 80)),
                   .cached_gbs = memory * random.between(10, 40) / 10,
                   .memory_gbs = memory,
                   .bytes_per_token = random.between(50, 1000) * 1e3};
    };
    Truth const out = draw();
    Truth const back = draw();
    std::vector<std::int64_t> const counts{0, 4, 16, 64, 256, 1024};
    auto const fit = fit_mode("throughput", timed(out, cache_bytes, counts, 3, noise, random),
                              timed(back, cache_bytes, counts, 3, noise, random));
    for (auto const& [truth, of] : {std::pair{out, &fit.dispatch}, std::pair{back, &fit.combine}})
      for (int const tokens : {2, 32, 128, 512}) {
        double const measured = true_us(truth, cache_bytes, tokens) * std::exp(noise * normal(random));
        double const us = predicted(fit, *of, truth.bytes_per_token * tokens);
        held += std::abs(std::log(us / measured)) < 1.645 * of->figures.spread ? 1 : 0;
        ++all;
      }
  }
  EXPECT_GT(held, 0.9 * all) << held << " of " << all;
}

// Noise shows in the spread, and a curve that the model does not have.
TEST(Calibration, SpreadIsWhatRunsDifferByAndWhatTheFitMisses) {
  std::vector<std::int64_t> const counts{0, 4, 16, 64, 256, 1024};
  auto const spread = [&](double noise, double bend) {
    Random random(7);
    auto out = timed(dispatch_truth, caches, counts, 3, noise, random);
    auto const back = timed(combine_truth, caches, counts, 3, noise, random);
    for (auto& call : out)
      if (call.tokens == 16) call.us *= bend;
    return fit_mode("throughput", out, back).dispatch.figures.spread;
  };
  EXPECT_GT(spread(0.3, 1), 1.5 * spread(0, 1));
  EXPECT_GT(spread(0, 3), 1.5 * spread(0, 1));
}

template <typename Work>
std::string refusal(Work&& work) {
  try {
    work();
  } catch (InvalidArgument const& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(Calibration, RefusesWhatSaysNothing) {
  Random random(3);
  std::vector<std::int64_t> const counts{0, 16, 256};
  auto const good = timed(dispatch_truth, caches, counts, 2, 0, random);
  auto const of = [&](std::vector<TimedCall> const& dispatch) {
    return refusal([&] { fit_mode("throughput", dispatch, good); });
  };
  EXPECT_THAT(of({}), HasSubstr("throughput.dispatch.tokens: expected 3 or more different numbers, seen 0"));
  EXPECT_THAT(of(timed(dispatch_truth, caches, {64}, 5, 0.1, random)),
              HasSubstr("throughput.dispatch.tokens: expected 3 or more different numbers, seen 1"));
  EXPECT_THAT(of(timed(dispatch_truth, caches, {0, 64}, 5, 0.1, random)), HasSubstr("seen 2"));
  for (double const us :
       {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    auto bad = good;
    bad[1].us = us;
    EXPECT_THAT(of(bad), HasSubstr("throughput.dispatch.us: expected a finite number above 0 for 16 tokens")) << us;
  }
  for (double const bytes : {-1.0, std::numeric_limits<double>::quiet_NaN()}) {
    auto bad = good;
    bad[1].bytes = bytes;
    EXPECT_THAT(of(bad), HasSubstr("throughput.dispatch.bytes: expected a finite number, 0 or more")) << bytes;
  }
  auto falling = good;
  for (auto& call : falling) call.us = 1000 - static_cast<double>(call.tokens);
  EXPECT_THAT(of(falling), HasSubstr("throughput.dispatch.us: expected times that grow with tokens"));
  auto still = good;
  for (auto& call : still) call.bytes = 0;
  EXPECT_THAT(of(still), HasSubstr("throughput.dispatch.us: expected times that grow with tokens"));
  EXPECT_THAT(refusal([&] { fit_mode("latency", good, {}); }), HasSubstr("latency.combine.tokens: expected 3"));
}

// A job on a calibrated machine, whose tokens all go to all of its ranks.
class CalibratedJob : public testing::Test {
 protected:
  CalibratedJob() {
    for (CallFigures* const figures : {&library_.throughput.dispatch, &library_.throughput.combine}) {
      figures->fixed_us = 40;
      figures->cached_rate = 90e9;
      figures->memory_rate = 30e9;
      figures->spread = 0.1;
    }
    ModeFigures& mode = library_.throughput;
    mode.cache_bytes = caches;
    mode.shared = {.memories = 1, .cores = 2};
    mode.least_ranks = mode.most_ranks = 4;
    mode.most_tokens = 1024;
    mode.row_bytes = 1000;
  }

  CallPlan plan(int ranks, std::int64_t tokens, std::size_t row = 1000) {
    std::vector<std::int32_t> ids;
    for (std::int64_t token = 0; token < tokens; ++token)
      for (int rank = 0; rank < ranks; ++rank) ids.push_back(rank);
    std::vector<SourceIds> sources;
    for (int rank = 0; rank < ranks; ++rank) sources.push_back({.rank = rank, .ids = ids});
    return simulate({.machine = &machine_,
                     .library = &library_,
                     .ranks = ranks,
                     .tokens = tokens,
                     .top_k = ranks,
                     .experts = ranks,
                     .payload_bytes = row,
                     .output_bytes = 2000},
                    sources);
  }

  Machine machine_{.name = "mine", .gpus_per_node = 64, .nodes = 1};
  Library library_ = calibrated_library();
};

double width(CallPlan const& plan) {
  return plan.combine.us.high / plan.combine.us.low;
}

// Each of R ranks reads a token and writes R rows, and all do so in one memory, in turns on 2 cores.
TEST_F(CalibratedJob, ByHand) {
  for (int const ranks : {2, 4, 8}) {
    auto const found = plan(ranks, 500);
    Truth truth{.fixed_us = 40 * (ranks / 2.0) / 2, .cached_gbs = 90, .memory_gbs = 30};
    truth.bytes_per_token = ranks * (1 + ranks) * 2000.0;
    EXPECT_NEAR(found.combine.time.total, true_us(truth, caches, 500), 1e-6) << ranks;
    truth.bytes_per_token = ranks * (1 + ranks) * (1000.0 + 12 * ranks);
    EXPECT_NEAR(found.dispatch.time.total, true_us(truth, caches, 500), 1e-6) << ranks;
    EXPECT_EQ(found.dispatch.time.bottleneck, Bottleneck::memory) << ranks;
    EXPECT_EQ(found.dispatch.time.link, 0);
  }
}

// Of GPUs, each has a memory of its own, and ranks that have a core each wait for no turn.
TEST_F(CalibratedJob, MemoriesOfTheirOwn) {
  library_.throughput.shared = {.memories = 8};
  for (int const ranks : {2, 4, 8}) {
    Truth const truth{.fixed_us = 40, .cached_gbs = 90, .memory_gbs = 30, .bytes_per_token = (1 + ranks) * 2000.0};
    EXPECT_NEAR(plan(ranks, 500).combine.time.total, true_us(truth, caches, 500), 1e-6) << ranks;
  }
}

TEST_F(CalibratedJob, WidensOutsideOfWhatWasTimedAndSaysSo) {
  auto const inside = plan(4, 512);
  EXPECT_THAT(inside.widened, testing::IsEmpty());
  EXPECT_NEAR(width(inside), std::exp(2 * 1.645 * 0.1), 1e-6);
  auto const more_tokens = plan(4, 4096);
  EXPECT_GT(width(more_tokens), 1.05 * width(inside));
  EXPECT_THAT(more_tokens.widened, testing::ElementsAre(HasSubstr("calibrated with 0 to 1024 tokens a rank")));
  for (int const ranks : {2, 8}) {
    auto const other = plan(ranks, 512);
    EXPECT_GT(width(other), 1.05 * width(inside));
    EXPECT_THAT(other.widened,
                testing::ElementsAre(HasSubstr("4 ranks were calibrated: others are taken to find the "
                                               "same rates of memory, and a fixed cost that grows")));
  }
  auto const larger = plan(4, 512, 4000);
  EXPECT_GT(width(larger), width(inside));
  EXPECT_THAT(larger.widened,
              testing::ElementsAre(HasSubstr("rows of 1000 bytes were calibrated, these have 4000")));
}

}  // namespace
}  // namespace switchyard::simulator
