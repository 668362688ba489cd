// Every byte of writes over libfabric, between two endpoints of a process.
#include <gtest/gtest.h>

#include <algorithm>

#include "fabric/ends.hpp"
#include "support/scale.hpp"
#include "switchyard/error.hpp"

namespace switchyard::test {
namespace {

// A write of random place and length into one slot of the receiver's memory, so that no two overlap.
struct Planned {
  std::size_t from = 0;
  std::size_t into = 0;
  std::size_t bytes = 0;
};

std::vector<Planned> plan(std::size_t count, std::size_t slot_bytes, Random& random) {
  std::vector<Planned> planned(count);
  for (std::size_t i = 0; i < count; ++i) {
    auto const longest = static_cast<std::int64_t>(slot_bytes);
    std::int64_t const bytes = random.chance(10)   ? 0
                               : random.chance(30) ? random.below(64)
                                                   : random.below(longest + 1);
    planned[i].bytes = static_cast<std::size_t>(bytes);
    planned[i].from =
        static_cast<std::size_t>(random.below(static_cast<std::int64_t>(count) * longest - bytes + 1));
    planned[i].into = i * slot_bytes + static_cast<std::size_t>(random.below(longest - bytes + 1));
  }
  return planned;
}

Write write_of(Planned const& one, End const& from, std::size_t index) {
  return {.to = from.peer,
          .from = one.bytes > 0 ? from.region.get() : nullptr,
          .from_offset = one.from,
          .into = from.target,
          .into_offset = one.into,
          .bytes = one.bytes,
          .immediate = static_cast<std::uint32_t>(index * 2654435761U),
          .context = index};
}

// A write's bytes must be there when its arrival is known.
void check_arrivals(End& to, End const& from, std::vector<Planned> const& planned) {
  for (Event const& event : to.poll()) {
    if (event.kind != Event::Kind::arrived) continue;
    std::size_t index = 0;
    while (index < planned.size() && static_cast<std::uint32_t>(index * 2654435761U) != event.immediate) ++index;
    ASSERT_LT(index, planned.size()) << "an immediate that nobody sent: " << event.immediate;
    Planned const& one = planned[index];
    EXPECT_TRUE(same_bytes(std::span(from.memory).subspan(one.from, one.bytes),
                           std::span(to.memory).subspan(one.into, one.bytes)))
        << "write " << index << " of " << one.bytes << " bytes";
  }
}

// Sends all of them one way; the receiver's memory must then hold these bytes and no others.
void exchange(Pair& pair, std::size_t count, std::size_t slot_bytes, std::uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Random random(seed);
  std::vector<Planned> const planned = plan(count, slot_bytes, random);
  fill(pair.a.memory, random);
  std::ranges::fill(pair.b.memory, std::byte{0});
  std::vector<std::byte> expected(pair.b.memory.size());
  for (std::size_t i = 0; i < count; ++i) {
    Planned const& one = planned[i];
    std::copy_n(pair.a.memory.begin() + static_cast<std::ptrdiff_t>(one.from), one.bytes,
                expected.begin() + static_cast<std::ptrdiff_t>(one.into));
    bool posted = false;
    ASSERT_TRUE(poll_until({&pair.a}, [&] {
      check_arrivals(pair.b, pair.a, planned);
      return posted = posted || pair.a.endpoint->post(write_of(one, pair.a, i)) == Endpoint::Posted::yes;
    }));
  }
  ASSERT_TRUE(poll_until({&pair.a},
                         [&] {
                           check_arrivals(pair.b, pair.a, planned);
                           return pair.a.sent.size() == count && pair.b.arrived.size() == count;
                         }))
      << pair.a.sent.size() << " sent, " << pair.b.arrived.size() << " arrived of " << count;
  EXPECT_TRUE(same_bytes(pair.b.memory, expected));
  for (auto const& [context, times] : pair.a.sent) EXPECT_EQ(times, 1) << "context " << context;
  for (auto const& [immediate, times] : pair.b.arrived) EXPECT_EQ(times, 1) << "immediate " << immediate;
  EXPECT_EQ(pair.a.failed + pair.b.failed, 0);
}

class FabricWrites : public testing::TestWithParam<Wish> {};

TEST_P(FabricWrites, EveryByteArrivesOnce) {
  constexpr std::size_t count = 200;
  constexpr std::size_t slot_bytes = 20000;
  Pair pair(GetParam(), count * slot_bytes);
  exchange(pair, count, slot_bytes, 1);
}

TEST_P(FabricWrites, LargeOnesArrive) {
  auto const count = static_cast<std::size_t>(by_scale(4, 8));
  constexpr std::size_t slot_bytes = std::size_t{2} << 20U;
  Pair pair(GetParam(), count * slot_bytes);
  exchange(pair, count, slot_bytes, 2);
}

// Writes that begin in one registration and end in another, on either side.
TEST_P(FabricWrites, CrossTheEdgesOfRegistrations) {
  constexpr std::size_t count = 60;
  constexpr std::size_t slot_bytes = 12000;
  EndpointOptions one{GetParam()};
  EndpointOptions other{GetParam()};
  one.piece_bytes = 4096;
  other.piece_bytes = 5000;
  Pair pair(one, other, count * slot_bytes);
  exchange(pair, count, slot_bytes, 3);
}

TEST_P(FabricWrites, BothWaysAtOnce) {
  constexpr std::size_t bytes = 100000;
  constexpr int rounds = 50;
  Pair pair(GetParam(), 2 * bytes);
  Random random(4);
  fill(pair.a.memory, random);
  fill(pair.b.memory, random);
  std::vector<std::byte> const a(pair.a.memory.begin(), pair.a.memory.begin() + bytes);
  std::vector<std::byte> const b(pair.b.memory.begin(), pair.b.memory.begin() + bytes);
  for (std::uint32_t i = 0; i < rounds; ++i) {
    for (End* from : pair.both) {
      post(*from, {from->peer, from->region.get(), 0, from->target, bytes, bytes, i, i}, pair.both);
    }
    ASSERT_TRUE(poll_until(pair.both, [&] { return pair.a.arrived.size() > i && pair.b.arrived.size() > i; }));
    EXPECT_TRUE(std::equal(a.begin(), a.end(), pair.b.memory.begin() + bytes));
    EXPECT_TRUE(std::equal(b.begin(), b.end(), pair.a.memory.begin() + bytes));
    ASSERT_TRUE(poll_until(pair.both, [&] { return pair.a.sent.size() > i && pair.b.sent.size() > i; }));
  }
}

// Immediates keep all of their bits, and those of writes without bytes come as often as they were sent.
TEST_P(FabricWrites, OnlyImmediates) {
  Pair pair(GetParam(), 64);
  std::ranges::fill(pair.b.memory, std::byte{7});
  std::vector<std::uint32_t> const immediates{0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x12345678};
  for (std::uint32_t const immediate : immediates) {
    for (int times = 0; times < 3; ++times) {
      post(pair.a, {.to = pair.a.peer, .immediate = immediate, .context = immediate}, pair.both);
    }
  }
  ASSERT_TRUE(poll_until(pair.both, [&] {
    return std::ranges::all_of(immediates,
                               [&](auto one) { return pair.b.arrived[one] >= 3 && pair.a.sent[one] >= 3; });
  }));
  for (std::uint32_t const immediate : immediates) EXPECT_EQ(pair.b.arrived[immediate], 3) << immediate;
  EXPECT_EQ(pair.b.arrived.size(), immediates.size());
  EXPECT_EQ(pair.a.arrived.size(), 0U) << "own completions were taken for arrivals";
  EXPECT_TRUE(std::ranges::all_of(pair.b.memory, [](std::byte one) { return one == std::byte{7}; }));
}

TEST_P(FabricWrites, AreBusyBeyondTheirLimit) {
  EndpointOptions few{GetParam()};
  few.max_writes = 3;
  Pair pair(few, few, 1 << 20U);
  ASSERT_EQ(pair.a.endpoint->capabilities().max_writes, 3U);
  std::uint64_t posted = 0;
  ASSERT_TRUE(poll_until({&pair.b}, [&] {
    Write const write{pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 1000, 5, posted};
    if (pair.a.endpoint->post(write) == Endpoint::Posted::yes) {
      ++posted;
    } else if (posted < 3) {
      pair.a.poll();  // the connection is being made
    }
    EXPECT_LE(posted, 3U + pair.a.sent.size());
    return posted >= 3 + pair.a.sent.size();
  }));
  EXPECT_EQ(pair.a.endpoint->post({pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 1000, 5, 9}),
            Endpoint::Posted::busy);
  ASSERT_TRUE(poll_until(pair.both, [&] { return pair.a.sent.size() == posted; }));
  post(pair.a, {pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 1000, 5, 9}, pair.both);
}

TEST_P(FabricWrites, IntoManyRegions) {
  constexpr std::size_t regions = 300;
  constexpr std::size_t bytes = 512;
  Pair pair(GetParam(), bytes);
  std::vector<std::vector<std::byte>> memories(regions, std::vector<std::byte>(bytes));
  std::vector<std::unique_ptr<Region>> owned;
  std::vector<PeerRegion> targets;
  for (auto& memory : memories) {
    owned.push_back(pair.b.endpoint->register_memory(memory));
    targets.push_back(pair.a.endpoint->add_region(pair.a.peer, owned.back()->key()));
  }
  for (std::uint32_t i = 0; i < regions; ++i) {
    ASSERT_TRUE(poll_until(pair.both, [&] { return pair.a.sent.size() == i; }));
    std::ranges::fill(pair.a.memory, static_cast<std::byte>(i * 7 + i / 256));
    post(pair.a, {pair.a.peer, pair.a.region.get(), 0, targets[i], 0, bytes, i, i}, pair.both);
  }
  ASSERT_TRUE(poll_until(pair.both, [&] { return pair.b.arrived.size() == regions; }));
  for (std::uint32_t i = 0; i < regions; ++i) {
    std::vector<std::byte> const expected(bytes, static_cast<std::byte>(i * 7 + i / 256));
    EXPECT_EQ(memories[i], expected) << "region " << i;
  }
}

// An endpoint may be its own peer.
TEST_P(FabricWrites, ToItself) {
  End self(EndpointOptions{GetParam()}, 2000);
  self.peer = self.endpoint->add_peer(self.endpoint->address(), "itself");
  self.target = self.endpoint->add_region(self.peer, self.region->key());
  Random random(5);
  fill(self.memory, random);
  post(self, {self.peer, self.region.get(), 0, self.target, 1000, 1000, 77, 78}, {&self});
  ASSERT_TRUE(poll_until({&self}, [&] { return self.arrived[77] == 1 && self.sent[78] == 1; }));
  EXPECT_TRUE(std::equal(self.memory.begin(), self.memory.begin() + 1000, self.memory.begin() + 1000));
}

INSTANTIATE_TEST_SUITE_P(Ways, FabricWrites, testing::ValuesIn(ways()), name_of_way);

}  // namespace
}  // namespace switchyard::test
