// Rounds put together give the order of one dispatch: checked with rows that carry their group, source and number.
#include "layout/row_merge.hpp"

#include <gtest/gtest.h>

#include <tuple>
#include <vector>

#include "support/check.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using MergedRow = std::tuple<int, int, std::int64_t>;  // group, source, number within both; (-1, -1, -1): padding

RowCounts random_counts(Random& random, int groups, int sources, int most) {
  RowCounts counts{.groups = groups, .sources = sources};
  for (int i = 0; i < groups * sources; ++i) counts.of.push_back(random.between(0, random.between(0, most)));
  return counts;
}

// The result of a dispatch, row by row; numbers start where the rounds before ended.
std::vector<MergedRow> rows_of(RowCounts const& counts, RowCounts const& before, int alignment) {
  std::vector<MergedRow> rows;
  for (int group = 0; group < counts.groups; ++group) {
    while (rows.size() % static_cast<std::size_t>(alignment) != 0) rows.emplace_back(-1, -1, -1);
    for (int source = 0; source < counts.sources; ++source) {
      for (std::int64_t i = 0; i < counts.at(group, source); ++i)
        rows.emplace_back(group, source, before.at(group, source) + i);
    }
  }
  return rows;
}

void expect_merged(Random& random) {
  int const groups = static_cast<int>(random.between(1, 6));
  int const sources = static_cast<int>(random.between(1, 5));
  int const alignment = static_cast<int>(random.between(1, 5));
  RowCounts total{.groups = groups, .sources = sources, .of = std::vector<std::int64_t>(groups * sources, 0)};
  RowCounts const none = total;
  std::vector<RowCounts> parts;
  for (std::int64_t i = random.between(1, 5); i > 0; --i) {
    parts.push_back(random_counts(random, groups, sources, 7));
    for (std::size_t k = 0; k < total.of.size(); ++k) total.of[k] += parts.back().of[k];
  }
  std::vector<MergedRow> const expected = rows_of(total, none, alignment);
  std::vector<MergedRow> seen(expected.size(), MergedRow(-1, -1, -1));
  RowMerge merge(total, alignment);
  RowCounts before = none;
  for (RowCounts const& part : parts) {
    std::vector<MergedRow> const rows = rows_of(part, before, alignment);
    for (RowSegment const& segment : merge.add(part)) {
      for (std::int64_t i = 0; i < segment.rows; ++i)
        seen.at(static_cast<std::size_t>(segment.whole + i)) = rows.at(static_cast<std::size_t>(segment.part + i));
    }
    for (std::size_t k = 0; k < before.of.size(); ++k) before.of[k] += part.of[k];
  }
  EXPECT_EQ(seen, expected);
}

TEST(RowMerge, GivesTheOrderOfOneDispatch) {
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", fresh_seed()));
  Random random(fresh_seed());
  for (int i = 0; i < 500 && !testing::Test::HasFailure(); ++i) expect_merged(random);
}

TEST(RowMerge, RefusesMoreThanTheTotal) {
  RowMerge merge({.groups = 1, .sources = 2, .of = {3, 0}}, 1);
  EXPECT_EQ(merge.add({.groups = 1, .sources = 2, .of = {2, 0}}).size(), 1U);
  EXPECT_THROW(merge.add({.groups = 1, .sources = 2, .of = {2, 0}}), InvalidArgument);
  EXPECT_THROW(merge.add({.groups = 2, .sources = 1, .of = {1, 0}}), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test
