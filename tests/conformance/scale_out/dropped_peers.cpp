// Calls of both modes over a transport that drops a rank on purpose, in the middle of them: the rank lives, so
// nobody but the transport can tell. Ranks are threads, over faulty endpoints that do other things wrong, too.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "conformance/scale_out/ports.hpp"
#include "support/low_latency_trip.hpp"
#include "support/node_calls.hpp"
#include "support/played_nodes.hpp"
#include "transport/faulty/drops.hpp"

namespace switchyard::test {
namespace {

using transport::faulty::Drop;
using transport::faulty::DropOnPurpose;
using transport::faulty::Loss;

// Of three nodes of two. Ranks 1, 3 and 5 write to one another, and so do the others.
constexpr int dropped = 3;
std::vector<int> const its_neighbours{1, 5};

class DroppedPeers : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (std::string const why_not = choose(GetParam()); !why_not.empty()) GTEST_SKIP() << why_not;
  }
  void TearDown() override {
    unsetenv("SWITCHYARD_TRANSPORT");
    unsetenv("SWITCHYARD_FAULTS");
  }

  // Runs the body as every rank, and drops as is asked when all are ready, and a while later.
  static void drop_later(std::vector<Drop> const& drops, std::function<void(Communicator&, Board&)> const& body) {
    Board board;
    Random random(fresh_seed());
    auto const delay = std::chrono::microseconds{random.below(20'000)};
    std::unique_ptr<DropOnPurpose> order;
    std::thread later([&] {
      if (!wait_until([&] { return board.ready >= num_node_ranks; })) return;
      std::this_thread::sleep_for(delay);
      order = std::make_unique<DropOnPurpose>(drops);
    });
    auto const outcomes = run_as_threads(
        num_node_ranks, [&](Communicator& communicator) { body(communicator, board); }, node_by_rank());
    later.join();
    report(outcomes, text("delay ", delay.count(), " us, SWITCHYARD_TEST_SEED=", fresh_seed()));
  }
};

auto faulty_ways() {
  return testing::Values(Way{"loopback", seed_of_faults()}, Way{"libfabric", seed_of_faults()});
}
INSTANTIATE_TEST_SUITE_P(Ways, DroppedPeers, faulty_ways());

// All ranks throw the same, the one that is dropped among them: it learns it from its node.
TEST_P(DroppedPeers, AreNamedByAllNodes) {
  Case c = node_case();
  c.launch = Launch::threads;
  Problem const problem = make_problem(c);
  std::vector<Drop> drops;
  for (int const neighbour : its_neighbours) drops.push_back({.endpoint = neighbour, .peer = dropped});
  drop_later(drops, [&](Communicator& communicator, Board& board) {
    Buffer buffer(communicator, node_options(problem));
    round_trip(problem, buffer);
    ++board.ready;
    auto const error = survive<PeerLost>(board, dropped, num_node_ranks, [&] {
      for (;;) round_trip(problem, buffer);
    });
    check_names(error, {name_of_rank(dropped)});
  });
}

// ---- low-latency calls whose ranks mask what they lose

constexpr std::string_view test_nodes = "SWITCHYARD_TEST_NODES";

class DroppedSlotPeers : public DroppedPeers {
 protected:
  void SetUp() override {
    DroppedPeers::SetUp();
    setenv(test_nodes.data(), "3", 1);  // two ranks each, as in node_by_rank()
  }
  void TearDown() override {
    unsetenv(test_nodes.data());
    DroppedPeers::TearDown();
  }

  static bool apart(int a, int b) {
    auto const is_neighbour = [](int rank) {
      return std::ranges::find(its_neighbours, rank) != its_neighbours.end();
    };
    return (a == dropped && is_neighbour(b)) || (b == dropped && is_neighbour(a));
  }

  static std::vector<Drop> both_ways() {
    std::vector<Drop> drops;
    for (int const neighbour : its_neighbours) {
      drops.push_back({.endpoint = neighbour, .peer = dropped});
      drops.push_back({.endpoint = dropped, .peer = neighbour});
    }
    return drops;
  }

  static Peers peers_of(int rank, Presence of_lost) {
    Peers peers;
    for (int peer = 0; peer < num_node_ranks; ++peer)
      peers.push_back(are_apart(node_by_rank(), apart, rank, peer) ? of_lost : Presence::here);
    return peers;
  }
};

INSTANTIATE_TEST_SUITE_P(Ways, DroppedSlotPeers, faulty_ways());

// Drops when all have sent, and nobody has received.
void receive_while_dropped(SlotTrip& trip, Board& board, std::function<void()> const& drop, int rank) {
  trip.send();
  ++board.ready;
  check(wait_until([&] { return board.ready >= num_node_ranks; }), "not all ranks have sent");
  if (rank == 0) {
    drop();
    board.struck_ms = now_ms();
  }
  check(wait_until([&] { return board.struck_ms != 0; }), "nobody was dropped");
  trip.receive();
  trip.check_received();
}

// The two sides lose each other, and whoever they reach through one another. All other tokens arrive. On sums of a
// combine in which ranks mask one another nobody counts (docs/low-latency.md, "Masks").
TEST_P(DroppedSlotPeers, CostTheirTokensOnly) {
  constexpr int settled = 2;  // trips
  SlotProblem const problem =
      make_slot_problem({.ranks = num_node_ranks, .tokens = 16, .hidden = 200, .experts = 12, .top_k = 4});
  Board board;
  std::unique_ptr<DropOnPurpose> order;
  auto const drop = [&] { order = std::make_unique<DropOnPurpose>(both_ways()); };
  run_slots(problem.the, [&](SlotRank& rank) {
    LowLatencyOptions options = rank.options();
    options.mask_late_peers = true;
    options.timeout = std::chrono::seconds{30};
    LowLatencyBuffer buffer(rank.communicator, options);
    slot_round_trip(problem, rank, buffer);
    for (int i = 0; i < settled; ++i) {
      SlotTrip trip(problem, rank, buffer);
      trip.expect(peers_of(rank.rank(), Presence::unsure));
      i == 0 ? receive_while_dropped(trip, board, drop, rank.rank()) : trip.dispatch();
      trip.send_outputs();
      trip.receive_outputs();
      trip.release();
    }
    Peers const peers = peers_of(rank.rank(), Presence::gone);
    for (int i = 0; i < 3; ++i) {
      slot_round_trip(problem, rank, buffer, peers);
      check_masked(buffer, peers);
    }
  });
}

}  // namespace
}  // namespace switchyard::test
