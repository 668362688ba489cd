// A neighbour that takes nothing, with more writes under way to it than the transport has room for: the others get
// theirs all the same.
#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <vector>

#include "scale_out/wires.hpp"
#include "support/check.hpp"
#include "transport/faulty/faults.hpp"

namespace switchyard::test {
namespace {

using scale_out::Channel;
using scale_out::Wires;

// A rank alone on its node, over a faulty transport, which ends no more than a window of writes to a peer that does
// not poll. It has room for `room` of them.
struct Lone {
  static constexpr std::uint64_t faults = 7;  // their own bound is 1 write, which the constructor makes sure of
  static constexpr std::size_t room = 40;

  std::vector<scale_out::Neighbour> neighbours;
  std::vector<std::byte> memory{64};
  std::optional<Wires> wires;
  std::vector<scale_out::WireEvent> events{};

  explicit Lone(int rank) : neighbours(scale_out::neighbours_of(Topology(std::vector{0, 1, 2}), rank)) {
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
  [[nodiscard]] int arrived() {
    wires->poll(events);
    return static_cast<int>(
        std::ranges::count(events, transport::Event::Kind::arrived, &scale_out::WireEvent::kind));
  }
};

TEST(WiresStarving, ANeighbourThatDoesNotPollHoldsUpNobodyElse) {
  constexpr int many = 1000;
  std::array<Lone, 3> ranks{Lone(0), Lone(1), Lone(2)};
  std::vector<std::vector<std::byte>> cards;
  for (Lone& rank : ranks) {
    MessageWriter card;
    rank.wires->put_card(card);
    cards.push_back(card.bytes());
  }
  for (Lone& rank : ranks) {
    std::vector<MessageReader> readers;
    for (auto const& card : cards) readers.emplace_back(card, "card");
    rank.wires->connect(readers);
  }
  for (int number = 0; number < many; ++number) ranks[0].wires->post({.channel = Channel::credit, .neighbour = 0});
  for (int turn = 0; turn < 10'000; ++turn) static_cast<void>(ranks[0].arrived());
  EXPECT_GT(ranks[0].wires->open(0, Channel::credit), Lone::room) << "nothing is in the way";
  ranks[0].wires->post({.channel = Channel::credit, .neighbour = 1});
  int found = 0;
  for (int turn = 0; turn < 100'000 && found == 0; ++turn) {
    static_cast<void>(ranks[0].arrived());
    found = ranks[2].arrived();
  }
  EXPECT_EQ(found, 1) << "rank 2 never got what is for it, since rank 1 takes nothing";
  for (int turn = 0; turn < 10'000'000 && ranks[1].arrived() < many; ++turn) static_cast<void>(ranks[0].arrived());
  EXPECT_EQ(ranks[1].arrived(), many) << "nothing is lost";
}

TEST(WiresStarving, NoNeighbourMayHaveMoreThanItsShare) {
  transport::Capabilities granted;
  granted.provider = "efa";
  granted.nic = "rdmap0";
  granted.max_writes = 100;
  EXPECT_EQ(scale_out::writes_to_one(granted, 100, 7), 100U);  // there is room for all
  EXPECT_EQ(scale_out::writes_to_one(granted, 101, 7), 14U);
  EXPECT_EQ(scale_out::writes_to_one(granted, 1000, 100), 1U);
  auto const error = expect_throw<Unsupported>(
      "too many", [&] { static_cast<void>(scale_out::writes_to_one(granted, 1000, 101)); });
  check_names(error, {"efa / rdmap0", "101 rail neighbours", "room for 100", "SWITCHYARD_FABRIC_PROVIDER"});
}

}  // namespace
}  // namespace switchyard::test
