// Jobs of several nodes, which are network namespaces: who finds whom, and what becomes of a rank that is killed or
// stopped and of a link that is cut.
#include "support/nodes.hpp"

namespace switchyard::test {
namespace {

using std::chrono::milliseconds;

constexpr int num_ranks = num_node_ranks;

TEST_F(Nodes, FindThemselves) {
  Processes processes = start([](Communicator& communicator) {
    check_equal(communicator.num_nodes(), num_nodes, "nodes");
    for (int rank = 0; rank < num_ranks; ++rank)
      check_equal(communicator.node_by_rank()[static_cast<std::size_t>(rank)], node_of(rank), "node of rank ",
                  rank);
    for (int round = 0; round < 20; ++round) {
      std::vector<std::byte> const mine(static_cast<std::size_t>(communicator.rank() * 100000 + round),
                                        static_cast<std::byte>(communicator.rank()));
      auto const all = communicator.all_gather(mine);
      for (int rank = 0; rank < num_ranks; ++rank) {
        std::vector<std::byte> const theirs(static_cast<std::size_t>(rank * 100000 + round),
                                            static_cast<std::byte>(rank));
        check(all[static_cast<std::size_t>(rank)] == theirs, "bytes of rank ", rank);
      }
      communicator.barrier();
    }
  });
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

// All ranks go from barrier to barrier until one of them is struck; then each other rank must name it.
template <typename Expected>
void go_on_until_lost(Communicator& communicator, Board& board, int victim, int survivors) {
  std::string const name = name_of_rank(victim);
  auto const error = expect_throw<Expected>("a barrier without a rank", [&] {
    for (int round = 0;; ++round) {
      communicator.barrier();
      if (round == 10) ++board.ready;
    }
  });
  check_equal(error.peer(), victim, "peer of the error: ", error.what());
  check_names(error, {name});
  ++board.done;
  // So that nobody blames a survivor for leaving.
  check(wait_until([&] { return board.done >= survivors; }), "the other survivors never ended");
}

class NodesKill : public Nodes, public testing::WithParamInterface<int> {};

TEST_P(NodesKill, IsNamedByAllNodes) {
  int const victim = GetParam();
  Shared<Board> const board;
  Processes processes = start(
      [&](Communicator& communicator) { go_on_until_lost<PeerLost>(communicator, *board, victim, num_ranks - 1); });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_ranks; }));
  processes.signal(victim, SIGKILL);
  expect_survivors(processes.wait(detection_bound), victim, SIGKILL, text("victim ", victim));
}

INSTANTIATE_TEST_SUITE_P(Victims, NodesKill, testing::Values(0, 1, 3, 4));

class NodesStop : public Nodes, public testing::WithParamInterface<int> {};

TEST_P(NodesStop, IsNamedByAllNodes) {
  int const victim = GetParam();
  Shared<Board> const board;
  auto const body = [&](Communicator& communicator) {
    go_on_until_lost<Timeout>(communicator, *board, victim, num_ranks - 1);
  };
  Processes processes = start(body, milliseconds{2000});
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_ranks; }));
  processes.signal(victim, SIGSTOP);
  ASSERT_TRUE(processes.wait_for(num_ranks - 1, detection_bound * 2));
  processes.signal(victim, SIGKILL);
  expect_survivors(processes.wait(), victim, SIGKILL, text("victim ", victim));
}

INSTANTIATE_TEST_SUITE_P(Victims, NodesStop, testing::Values(0, 3));

// A cut shorter than the deadline: calls end right, late.
TEST_F(Nodes, ALinkThatComesBack) {
  Shared<Board> const board;
  Processes processes = start([&](Communicator& communicator) {
    for (int round = 0; round < 3000; ++round) {
      communicator.barrier();
      if (round == 10) ++board->ready;
    }
  });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_ranks; }));
  namespaces_->set_link(1, false);
  std::this_thread::sleep_for(milliseconds{1500});
  namespaces_->set_link(1, true);
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

// Cut for good: each side names a rank of the other by its deadline, and nobody hangs.
TEST_F(Nodes, ALinkThatIsCut) {
  constexpr int cut = 1;
  Shared<Board> const board;
  auto const body = [&](Communicator& communicator) {
    auto const error = expect_throw<Timeout>("a barrier over a link that is cut", [&] {
      for (int round = 0;; ++round) {
        communicator.barrier();
        if (round == 10) ++board->ready;
      }
    });
    bool const is_cut_off = node_of(communicator.rank()) == cut;
    check((node_of(error.peer()) == cut) != is_cut_off, "rank ", communicator.rank(), ": ", error.what());
    ++board->done;
    check(wait_until([&] { return board->done >= num_ranks; }), "other ranks never ended");
  };
  Processes processes = start(body, milliseconds{2000});
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_ranks; }));
  namespaces_->set_link(cut, false);
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

}  // namespace
}  // namespace switchyard::test
