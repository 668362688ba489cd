// Neighbours that take nothing, with more writes for them than the transport has room for, and more neighbours than
// it has room for writes: the others get theirs all the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <vector>

#include "scale_out/wires.hpp"
#include "support/check.hpp"
#include "support/random.hpp"
#include "support/scale.hpp"
#include "transport/faulty/faults.hpp"

namespace switchyard::test {
namespace {

using scale_out::Channel;
using scale_out::Wires;

// A rank alone on its node, over a faulty transport, which ends no more than a window of writes to a peer that does
// not poll. It has room for `room` of them.
struct Lone {
  static constexpr std::uint64_t faults = 7;  // their own bound is 1 write, which the constructor makes sure of

  std::vector<scale_out::Neighbour> neighbours;
  std::vector<std::byte> memory{64};
  std::optional<Wires> wires;
  std::vector<scale_out::WireEvent> events{};
  std::size_t counted = 0;  // events of which arrivals are in `arrivals`
  int arrivals = 0;

  Lone(int rank, int ranks, std::size_t room) : neighbours(scale_out::neighbours_of(each_alone(ranks), rank)) {
    check_equal(transport::faulty::faults_of(faults, 0).max_writes, std::size_t{1},
                "writes that these faults take");
    wires.emplace(scale_out::BackEnd{.loopback = true, .faults = faults},
                  scale_out::EndpointTerms{.rank = rank,
                                           .address = {},
                                           .max_writes = 1000,
                                           .lasting_writes = room - 1,
                                           .max_arrivals = 1000,
                                           .memory_bytes = 64},
                  neighbours, memory);
  }
  static Topology each_alone(int ranks) {
    std::vector<int> node_by_rank(static_cast<std::size_t>(ranks));
    std::iota(node_by_rank.begin(), node_by_rank.end(), 0);
    return Topology(node_by_rank);
  }
  // So far.
  [[nodiscard]] int arrived() {
    wires->poll(events);
    for (; counted < events.size(); ++counted)
      if (events[counted].kind == transport::Event::Kind::arrived) ++arrivals;
    return arrivals;
  }
  // Of all neighbours: posted, and not ended.
  [[nodiscard]] std::size_t under_way() const {
    std::size_t open = 0;
    for (int channel = 0; channel < scale_out::num_channels; ++channel)
      open += wires->open(static_cast<Channel>(channel));
    for (int neighbour = 0; neighbour < static_cast<int>(neighbours.size()); ++neighbour)
      open -= wires->kept(neighbour);
    return open;
  }
};

std::vector<std::unique_ptr<Lone>> connected(int count, std::size_t room) {
  std::vector<std::unique_ptr<Lone>> ranks;
  std::vector<std::vector<std::byte>> cards;
  for (int rank = 0; rank < count; ++rank) {
    ranks.push_back(std::make_unique<Lone>(rank, count, room));
    MessageWriter card;
    ranks.back()->wires->put_card(card);
    cards.push_back(card.bytes());
  }
  for (auto const& rank : ranks) {
    std::vector<MessageReader> readers;
    for (auto const& card : cards) readers.emplace_back(card, "card");
    rank->wires->connect(readers);
  }
  return ranks;
}

TEST(WiresStarving, ANeighbourThatDoesNotPollHoldsUpNobodyElse) {
  constexpr int many = 1000;
  constexpr std::size_t room = 40;
  auto const ranks = connected(3, room);
  for (int number = 0; number < many; ++number) ranks[0]->wires->post({.channel = Channel::credit, .neighbour = 0});
  for (int turn = 0; turn < 10'000; ++turn) static_cast<void>(ranks[0]->arrived());
  EXPECT_GT(ranks[0]->wires->open(0, Channel::credit), room) << "nothing is in the way";
  ranks[0]->wires->post({.channel = Channel::credit, .neighbour = 1});
  int found = 0;
  for (int turn = 0; turn < 100'000 && found == 0; ++turn) {
    static_cast<void>(ranks[0]->arrived());
    found = ranks[2]->arrived();
  }
  EXPECT_EQ(found, 1) << "rank 2 never got what is for it, since rank 1 takes nothing";
  for (int turn = 0; turn < 10'000'000 && ranks[1]->arrived() < many; ++turn)
    static_cast<void>(ranks[0]->arrived());
  EXPECT_EQ(ranks[1]->arrived(), many) << "nothing is lost";
}

// All write to all, with room for a few of the eleven neighbours. Who polls is drawn, so that now and then some are
// far behind. Each write arrives once.
TEST(WiresStarving, MoreNeighboursThanRoomTakeTurns) {
  constexpr int count = 12;
  std::uint64_t const seed = fresh_seed();
  SCOPED_TRACE(text("SWITCHYARD_TEST_SEED=", seed));
  Random random(seed);
  for (std::size_t const room : {1U, 2U, 3U, 7U}) {
    SCOPED_TRACE(text("room for ", room));
    auto const ranks = connected(count, room);
    int const each = by_scale(5, 20);
    for (int number = 0; number < each; ++number) {
      for (auto const& rank : ranks) {
        for (int neighbour = 0; neighbour < count - 1; ++neighbour) {
          rank->wires->post({.channel = static_cast<Channel>(number % scale_out::num_channels),
                             .neighbour = neighbour,
                             .slot = number,
                             .epoch = static_cast<std::uint64_t>(number)});
          EXPECT_LE(rank->under_way(), room);
        }
      }
    }
    auto const all_here = [&](auto const& rank) { return rank->arrived() == each * (count - 1); };
    for (int turn = 0; turn < 1'000'000 && !std::ranges::all_of(ranks, all_here); ++turn) {
      for (int some = 0; some < 20; ++some) {
        Lone& rank = *ranks[static_cast<std::size_t>(random.below(count))];
        static_cast<void>(rank.arrived());
        ASSERT_LE(rank.under_way(), room);
      }
    }
    for (auto const& rank : ranks) {
      std::map<std::uint32_t, int> times;  // by immediate, which says source, channel and number
      for (auto const& event : rank->events)
        if (event.kind == transport::Event::Kind::arrived) ++times[event.immediate];
      EXPECT_EQ(times.size(), static_cast<std::size_t>(each * (count - 1)));
      EXPECT_TRUE(std::ranges::all_of(times, [](auto const& one) { return one.second == 1; }));
    }
  }
}

// Eight neighbours are between calls: they do not poll, and there are more credits for them than there is room for
// writes. Three are in a call, and get their letters and chunks.
TEST(WiresStarving, ManyNeighboursBetweenCallsHoldUpNoLetter) {
  constexpr std::size_t room = 6;
  constexpr int idle = 8;
  constexpr int chunks = 50;
  constexpr int many = 500;
  auto const ranks = connected(12, room);
  for (int number = 0; number < many; ++number)
    for (int neighbour = 0; neighbour < idle; ++neighbour)
      ranks[0]->wires->post({.channel = Channel::credit, .neighbour = neighbour});
  for (int turn = 0; turn < 20'000; ++turn) static_cast<void>(ranks[0]->arrived());
  for (int neighbour = 0; neighbour < idle; ++neighbour)
    EXPECT_GT(ranks[0]->wires->open(neighbour, Channel::credit), 0U) << "nothing is in the way";
  for (int neighbour = idle; neighbour < 11; ++neighbour) {
    ranks[0]->wires->post({.channel = Channel::letter, .neighbour = neighbour});
    for (int number = 0; number < chunks; ++number)
      ranks[0]->wires->post({.channel = Channel::chunk, .neighbour = neighbour});
  }
  auto const in_call = std::span(ranks).subspan(idle + 1);
  auto const all_here = [](auto const& rank) { return rank->arrived() == 1 + chunks; };
  bool done = false;
  for (int turn = 0; turn < 100'000 && !done; ++turn) {
    static_cast<void>(ranks[0]->arrived());
    done = std::ranges::count_if(in_call, all_here) == 3;
  }
  EXPECT_TRUE(done) << "those in the call never got what is for them, since others are between calls";
  // They come back, all of them: any that does not may hold up words for others.
  auto const between = std::span(ranks).subspan(1, idle);
  auto const had_all = [](auto const& rank) { return rank->arrived() == many; };
  for (int turn = 0; turn < 1'000'000 && std::ranges::count_if(between, had_all) < idle; ++turn)
    static_cast<void>(ranks[0]->arrived());
  EXPECT_EQ(std::ranges::count_if(between, had_all), idle) << "nothing is lost";
}

TEST(WiresStarving, NoNeighbourMayHaveMoreThanItsShare) {
  transport::Capabilities granted;
  granted.max_writes = 100;
  auto const expect = [&](std::size_t asked, std::size_t neighbours, scale_out::WriteRoom const& expected) {
    scale_out::WriteRoom const room = scale_out::write_room(granted, asked, neighbours);
    EXPECT_EQ(room.in_all, 100U);
    EXPECT_EQ(room.to_one, expected.to_one);
    EXPECT_EQ(room.of_words, expected.of_words);
    EXPECT_EQ(room.in_turns, expected.in_turns);
  };
  expect(100, 7, {.to_one = 100, .of_words = 100});  // there is room for all
  expect(101, 7, {.to_one = 14, .of_words = 100});
  expect(1000, 100, {.to_one = 1, .of_words = 100});
  expect(1000, 101, {.to_one = 1, .of_words = 50, .in_turns = true});
  granted.max_writes = 1;
  EXPECT_EQ(scale_out::write_room(granted, 10, 2).of_words, 1U) << "words leave, too";
}

}  // namespace
}  // namespace switchyard::test
