// Percentiles, and the largest over ranks.
#include "cli/bench/statistics.hpp"

#include <gtest/gtest.h>

namespace switchyard::cli {
namespace {

TEST(Statistics, PercentileInterpolates) {
  std::vector<double> const samples{40, 10, 30, 20};
  EXPECT_DOUBLE_EQ(percentile(samples, 0), 10);
  EXPECT_DOUBLE_EQ(percentile(samples, 50), 25);
  EXPECT_DOUBLE_EQ(percentile(samples, 100), 40);
  EXPECT_DOUBLE_EQ(percentile(samples, 99), 30 + 10 * 0.97);
}

TEST(Statistics, PercentileOfFewSamples) {
  EXPECT_DOUBLE_EQ(percentile({}, 50), 0);
  std::vector<double> const one{7};
  EXPECT_DOUBLE_EQ(percentile(one, 1), 7);
  EXPECT_DOUBLE_EQ(percentile(one, 99), 7);
}

TEST(Statistics, PercentileStaysInRange) {
  std::vector<double> const samples{1, 2, 3};
  EXPECT_DOUBLE_EQ(percentile(samples, -5), 1);
  EXPECT_DOUBLE_EQ(percentile(samples, 200), 3);
}

TEST(Statistics, SummaryIsOrdered) {
  std::vector<double> samples;
  for (int i = 100; i >= 0; --i) samples.push_back(i);
  Summary const summary = summarise(samples);
  EXPECT_DOUBLE_EQ(summary.p50, 50);
  EXPECT_DOUBLE_EQ(summary.p95, 95);
  EXPECT_DOUBLE_EQ(summary.p99, 99);
  EXPECT_DOUBLE_EQ(summary.p999, 99.9);
  EXPECT_DOUBLE_EQ(summary.max, 100);
}

TEST(Statistics, MaxOverRanksGoesByIteration) {
  std::vector<std::vector<double>> const rows{{1, 5, 3}, {2, 4, 3}};
  EXPECT_EQ(max_over_ranks(rows), (std::vector<double>{2, 5, 3}));
  EXPECT_TRUE(max_over_ranks({}).empty());
}

}  // namespace
}  // namespace switchyard::cli
