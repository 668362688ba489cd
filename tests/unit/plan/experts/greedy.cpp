// The parts that a search starts from: whole numbers, replicas, bins.
#include <gtest/gtest.h>

#include "plan/experts/fixed_point.hpp"
#include "plan/experts/packing.hpp"
#include "plan/experts/replicas.hpp"
#include "support/experts.hpp"

namespace switchyard::test {
namespace {

using experts::FixedPoint;

TEST(ExpertFixedPoint, KeepsWholeNumbersAndTheirRatios) {
  std::vector<double> const values{0, 1, 3, (1 << 24) - 1};
  auto const amounts = FixedPoint(values).of(values);
  EXPECT_EQ(amounts[0], 0);
  EXPECT_EQ(amounts[2], 3 * amounts[1]);
  EXPECT_EQ(amounts[3], ((1 << 24) - 1) * amounts[1]);
}

TEST(ExpertFixedPoint, FitsForAnyRange) {
  for (double const value : {5e-324, 1e-300, 1.0, 1e250}) {
    std::vector<double> const values(1 << 20, value);
    auto const amounts = FixedPoint(values).of(values);
    double sum = 0;
    for (auto const amount : amounts) sum += static_cast<double>(amount);
    EXPECT_GT(amounts.front(), 1 << 30) << value;
    EXPECT_LE(sum, 0x1p61) << value;
  }
  std::vector<double> const none(3, 0.0);
  EXPECT_EQ(FixedPoint(none).of(none), (std::vector<experts::Amount>{0, 0, 0}));
  EXPECT_GE(FixedPoint(none).of(std::numeric_limits<double>::infinity()), experts::Amount{1} << 60);
}

// The least that the largest load of a replica can be, by all ways to share replicas out.
double least_share(std::span<double const> loads, int replicas) {
  if (loads.size() == 1) return loads[0] / replicas;
  double least = std::numeric_limits<double>::infinity();
  int const others = static_cast<int>(loads.size()) - 1;
  for (int first = 1; first <= replicas - others; ++first)
    least = std::min(least, std::max(loads[0] / first, least_share(loads.subspan(1), replicas - first)));
  return least;
}

TEST(ExpertReplicas, MakeTheHeaviestReplicaAsLightAsItCanBe) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(text("seed ", seed));
    Random random(seed);
    std::vector<double> loads;
    for (int i = random.between(1, 5); i > 0; --i) loads.push_back(static_cast<double>(random.below(50)));
    int const replicas = static_cast<int>(loads.size()) + random.between(0, 6);
    std::vector<int> const counts = experts::count_replicas<double>(loads, replicas);
    double most = 0;
    for (std::size_t i = 0; i < loads.size(); ++i) most = std::max(most, loads[i] / counts[i]);
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0), replicas);
    EXPECT_EQ(most, least_share(loads, replicas));
  }
}

TEST(ExpertPacking, FillsTheLightestBinWithRoom) {
  std::vector<double> const items{8, 7, 6, 5, 4, 3};
  EXPECT_EQ(experts::pack<double>(items, 2), (std::vector<int>{0, 1, 1, 0, 0, 1}));
  std::vector<double> const one_heavy{100, 1, 1, 1};
  EXPECT_EQ(experts::pack<double>(one_heavy, 2), (std::vector<int>{0, 1, 1, 0}));
  std::vector<float> const equal(4, 2);
  EXPECT_EQ(experts::pack<float>(equal, 4), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(experts::heaviest_first<float>(std::vector<float>{1, 3, 2, 3}), (std::vector<int>{1, 3, 2, 0}));
}

}  // namespace
}  // namespace switchyard::test
