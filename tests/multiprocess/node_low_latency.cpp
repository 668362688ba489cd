// Low-latency calls over nodes that are network namespaces: ranks, a whole node and a link go, and those who mask
// what is late go on without them. A lost rank costs its tokens, what its experts would have added, and what it
// passes on.
#include "support/low_latency_trip.hpp"
#include "support/node_calls.hpp"
#include "support/played_nodes.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

class NodeLowLatency : public Nodes {
 protected:
  using Body = std::function<void(SlotRank&, LowLatencyBuffer&)>;

  // What a combine must give depends on the nodes, which the problem takes from here.
  void SetUp() override {
    setenv("SWITCHYARD_TEST_NODES", std::to_string(num_nodes).c_str(), 1);
    Nodes::SetUp();
    problem_ = make_slot_problem({.launch = Launch::processes,
                                  .ranks = num_node_ranks,
                                  .tokens = 16,
                                  .hidden = 200,
                                  .experts = 12,
                                  .top_k = 4});
  }
  void TearDown() override { unsetenv("SWITCHYARD_TEST_NODES"); }

  // Each rank makes one good round trip first.
  [[nodiscard]] Processes start_ranks(std::chrono::milliseconds timeout, Body const& body) const {
    return start([this, timeout, body](Communicator& communicator) {
      std::unique_ptr<RankMemory> const memory = slot_engine().memory(communicator.rank());
      communicator.barrier();
      SlotRank rank{problem_.the, communicator, *memory};
      LowLatencyOptions options = rank.options();
      options.mask_late_peers = true;
      options.timeout = timeout;
      LowLatencyBuffer buffer(communicator, options);
      slot_round_trip(problem_, rank, buffer);
      body(rank, buffer);
    });
  }

  // Of those that `rank` reaches no more. Ranks that exchange through a lost one may still have done so.
  static Peers peers_of(int rank, Apart const& apart, Presence of_others) {
    Peers peers;
    for (int peer = 0; peer < num_node_ranks; ++peer) {
      bool const lost = are_apart(node_by_rank(), apart, rank, peer);
      peers.push_back(!lost ? Presence::here : (apart(rank, peer) ? Presence::gone : of_others));
    }
    return peers;
  }

  // Trips of a rank that has just lost some: they end right for all others.
  void trips_without(SlotRank& rank, LowLatencyBuffer& buffer, Apart const& apart) const {
    for (int i = 0; i < 4; ++i) {
      Peers const peers = peers_of(rank.rank(), apart, i == 0 ? Presence::unsure : Presence::gone);
      SlotTrip trip(problem_, rank, buffer);
      trip.expect(peers);
      trip.dispatch(i == 2);
      trip.combine(i == 2);
      trip.release();
      if (i == 0) continue;
      check_masked(buffer, peers);
    }
  }

  // The victims go before their second dispatch.
  void kill(std::vector<int> const& victims) {
    Traces const traces;
    Shared<Board> const board;
    auto const is_victim = [&](int rank) { return std::ranges::find(victims, rank) != victims.end(); };
    int const survivors = num_node_ranks - static_cast<int>(victims.size());
    Processes processes = start_ranks(30s, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
      ++board->ready;
      check(wait_until([&] { return board->ready >= num_node_ranks; }), "the ranks never got going");
      if (is_victim(rank.rank())) die();
      trips_without(rank, buffer, [&](int a, int b) { return is_victim(a) || is_victim(b); });
      ++board->done;
      check(wait_until([&] { return board->done >= survivors; }), "the other survivors never ended");
    });
    expect_others_well(processes.wait(), victims, SIGKILL);
    traces.expect_none();
  }

  SlotProblem problem_;
};

// The first rank serves the store.
TEST_F(NodeLowLatency, ARankIsKilled) {
  for (int const victim : {0, 3}) kill({victim});
}

TEST_F(NodeLowLatency, ANodeIsKilled) {
  kill({4, 5});
}

// Each side takes the other for late, and both go on.
TEST_F(NodeLowLatency, ALinkIsCutForGood) {
  constexpr int cut = 1;
  Shared<Board> const board;
  Processes processes = start_ranks(1500ms, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    ++board->ready;
    check(wait_until([&] { return board->struck_ms != 0; }), "the test never began");
    trips_without(rank, buffer, [](int a, int b) { return (node_of(a) == cut) != (node_of(b) == cut); });
    ++board->done;
    check(wait_until([&] { return board->done >= num_node_ranks; }), "other ranks never ended");
  });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->set_link(cut, false);
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

// Nobody is masked for packets that come again.
TEST_F(NodeLowLatency, SomePacketsAreLost) {
  if (std::string const why_not = Namespaces::why_no_loss(); !why_not.empty()) GTEST_SKIP() << why_not;
  Shared<Board> const board;
  Processes processes = start_ranks(30s, [&](SlotRank& rank, LowLatencyBuffer& buffer) {
    ++board->ready;
    check(wait_until([&] { return board->struck_ms != 0; }), "the test never began");
    for (int i = 0; i < by_scale(5, 20); ++i) slot_round_trip(problem_, rank, buffer);
    std::vector<bool> const masked = buffer.masked();
    check(std::ranges::count(masked, true) == 0, "a rank is masked at rank ", rank.rank());
    ++board->done;
    check(wait_until([&] { return board->done >= num_node_ranks; }, 60s), "other ranks never ended");
  });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->drop(5);
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

}  // namespace
}  // namespace switchyard::test
