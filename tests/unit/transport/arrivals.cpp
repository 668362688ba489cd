// The immediate as engines lay it out, and what is counted of what arrives.
#include "transport/arrivals.hpp"

#include <gtest/gtest.h>

#include <map>
#include <tuple>

#include "support/random.hpp"
#include "support/scale.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

using transport::Arrivals;
using transport::epoch_near;
using transport::immediate_of;
using transport::Tag;
using transport::tag_of;

std::uint32_t arrival(int channel, int source, std::uint64_t epoch) {
  return immediate_of({.channel = channel, .source = source, .epoch = epoch});
}

TEST(Immediate, EveryFieldComesBack) {
  Random random(1);
  for (int i = 0; i < 10000; ++i) {
    auto const bits = static_cast<std::uint32_t>(random.bits());
    Tag const tag = tag_of(bits);
    EXPECT_EQ(immediate_of(tag), bits);
    Tag far = tag;
    far.epoch += random.bits() % 1000 * transport::epoch_range;
    EXPECT_EQ(immediate_of(far), bits);
  }
}

TEST(Immediate, FieldsDoNotRunIntoOneAnother) {
  Tag const tag{.channel = 5, .source = 2047, .slot = 1, .epoch = 255};
  Tag const back = tag_of(immediate_of(tag));
  EXPECT_EQ(std::tie(back.channel, back.source, back.slot, back.epoch),
            std::tie(tag.channel, tag.source, tag.slot, tag.epoch));
}

TEST(Immediate, RefusesWhatDoesNotFit) {
  EXPECT_THROW(immediate_of({.channel = -1}), InvalidArgument);
  EXPECT_THROW(immediate_of({.channel = transport::max_channels}), InvalidArgument);
  EXPECT_THROW(immediate_of({.source = -1}), InvalidArgument);
  EXPECT_THROW(immediate_of({.source = transport::max_sources}), InvalidArgument);
  EXPECT_THROW(immediate_of({.slot = -1}), InvalidArgument);
  EXPECT_THROW(immediate_of({.slot = transport::max_slots}), InvalidArgument);
}

TEST(Immediate, TheNearestEpochIsMeant) {
  constexpr std::uint64_t half = transport::epoch_range / 2;
  for (std::uint64_t const current :
       {std::uint64_t{1000}, std::uint64_t{255}, std::uint64_t{256}, std::uint64_t{1} << 40U}) {
    for (std::uint64_t epoch = current - half; epoch < current + half; ++epoch)
      EXPECT_EQ(epoch_near(epoch % transport::epoch_range, current), epoch);
  }
}

TEST(Arrivals, CountsBySourceAndChannel) {
  Arrivals arrivals(2, 3, 10);
  arrivals.begin(0, 1);
  arrivals.begin(1, 1);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(arrivals.take(arrival(0, 2, 1)).when, Arrivals::When::current);
  arrivals.take(arrival(1, 0, 1));
  EXPECT_EQ(arrivals.count(0, 2), 4U);
  EXPECT_EQ(arrivals.count(0, 0), 0U);
  EXPECT_EQ(arrivals.total(0), 4U);
  EXPECT_EQ(arrivals.total(1), 1U);
}

TEST(Arrivals, NamesWhoIsMissing) {
  Arrivals arrivals(1, 3, 10);
  arrivals.begin(0, 1);
  std::vector<std::uint32_t> const expected{1, 0, 2};
  EXPECT_EQ(arrivals.first_missing(0, expected), 0);
  arrivals.take(arrival(0, 0, 1));
  arrivals.take(arrival(0, 2, 1));
  EXPECT_EQ(arrivals.first_missing(0, expected), 2);
  arrivals.take(arrival(0, 2, 1));
  EXPECT_EQ(arrivals.first_missing(0, expected), std::nullopt);
  arrivals.take(arrival(0, 1, 1));
  EXPECT_THROW(std::ignore = arrivals.first_missing(0, expected), SystemError);
}

// Chunks of the next epoch arrive while this rank is still in the current one.
TEST(Arrivals, ParksLaterEpochs) {
  Arrivals arrivals(2, 2, 10);
  arrivals.begin(0, 7);
  auto const early = immediate_of({.channel = 0, .source = 1, .slot = 3, .epoch = 8});
  auto const taken = arrivals.take(early);
  EXPECT_EQ(taken.when, Arrivals::When::parked);
  EXPECT_EQ(taken.tag.epoch, 8U);
  arrivals.take(arrival(0, 0, 9));
  EXPECT_EQ(arrivals.total(0), 0U);
  EXPECT_EQ(arrivals.num_parked(0), 2U);

  auto const now = arrivals.begin(0, 8);
  ASSERT_EQ(now.size(), 1U);
  EXPECT_EQ(now[0].slot, 3);
  EXPECT_EQ(arrivals.count(0, 1), 1U);
  EXPECT_EQ(arrivals.num_parked(0), 1U);
  EXPECT_EQ(arrivals.begin(0, 9).size(), 1U);
  EXPECT_EQ(arrivals.total(0), 1U);
}

TEST(Arrivals, LateOnesCountForNothing) {
  Arrivals arrivals(1, 1, 10);
  arrivals.begin(0, 5);
  arrivals.begin(0, 6);
  auto const taken = arrivals.take(arrival(0, 0, 5));
  EXPECT_EQ(taken.when, Arrivals::When::late);
  EXPECT_EQ(taken.tag.epoch, 5U);
  EXPECT_EQ(arrivals.total(0), 0U);
  EXPECT_EQ(arrivals.num_late(0), 1U);
  // Parked for an epoch that is left out.
  arrivals.take(arrival(0, 0, 7));
  EXPECT_TRUE(arrivals.begin(0, 8).empty());
  EXPECT_EQ(arrivals.num_late(0), 2U);
}

TEST(Arrivals, RefusesWhatPeersMustNotSend) {
  Arrivals arrivals(2, 3, 2);
  EXPECT_THROW(arrivals.take(arrival(2, 0, 0)), SystemError);
  EXPECT_THROW(arrivals.take(arrival(0, 3, 0)), SystemError);
  arrivals.take(arrival(0, 0, 1));
  arrivals.take(arrival(0, 0, 2));
  EXPECT_THROW(arrivals.take(arrival(0, 0, 3)), SystemError) << "as many as may wait do already";
}

TEST(Arrivals, RefusesWhatItsCallerMustNotAsk) {
  EXPECT_THROW(Arrivals(0, 1, 1), InvalidArgument);
  EXPECT_THROW(Arrivals(transport::max_channels + 1, 1, 1), InvalidArgument);
  EXPECT_THROW(Arrivals(1, 0, 1), InvalidArgument);
  EXPECT_THROW(Arrivals(1, transport::max_sources + 1, 1), InvalidArgument);
  Arrivals arrivals(1, 1, 1);
  arrivals.begin(0, 3);
  EXPECT_THROW(arrivals.begin(0, 3), InvalidArgument);
  EXPECT_THROW(arrivals.begin(1, 4), InvalidArgument);
  EXPECT_THROW(std::ignore = arrivals.count(0, 1), InvalidArgument);
  EXPECT_THROW(std::ignore = arrivals.first_missing(0, {}), InvalidArgument);
}

// Against a plain table of everything that ever arrived.
TEST(Arrivals, AgreesWithATable) {
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(seed);
  Random random(seed);
  Arrivals arrivals(3, 4, 1000);
  std::map<std::tuple<int, int, std::uint64_t>, std::uint32_t> table;
  std::array<std::uint64_t, 3> epochs{};
  for (int step = 0; step < 20000; ++step) {
    int const channel = random.between(0, 2);
    std::uint64_t& epoch = epochs.at(static_cast<std::size_t>(channel));
    if (random.chance(5)) {
      arrivals.begin(channel, ++epoch);
    } else {
      int const source = random.between(0, 3);
      std::uint64_t const of = epoch + static_cast<std::uint64_t>(random.between(0, 3));
      arrivals.take(arrival(channel, source, of));
      ++table[{channel, source, of}];
    }
    std::uint64_t total = 0;
    for (int source = 0; source < 4; ++source) {
      EXPECT_EQ(arrivals.count(channel, source), (table[{channel, source, epoch}]));
      total += arrivals.count(channel, source);
    }
    ASSERT_EQ(arrivals.total(channel), total);
  }
}

}  // namespace
}  // namespace switchyard::test
