// Calls over nodes whose network fails: a link that is cut for good, or for a while, and packets that are lost.
#include "support/node_calls.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

class NodeLinks : public Nodes {
 protected:
  // What ranks do until all of them have seen that the test is over. Rank 0 decides, so that all make equal calls.
  static void trip_until_over(Board& board, Communicator& communicator, Buffer& buffer, Problem const& problem) {
    ++board.ready;
    for (bool over = false; !over;) {
      round_trip(problem, buffer);
      if (communicator.rank() == 0) ++board.done;
      std::byte const mine{board.struck_ms != 0 ? std::uint8_t{1} : std::uint8_t{0}};
      over = communicator.all_gather({&mine, 1})[0][0] == std::byte{1};
    }
  }

  void SetUp() override {
    Nodes::SetUp();
    problem_ = make_problem(node_case());
  }

  [[nodiscard]] Processes start_trips(Board& board) const {
    return start([&](Communicator& communicator) {
      Buffer buffer(communicator, node_options(problem_));
      trip_until_over(board, communicator, buffer, problem_);
    });
  }

  Problem problem_;
};

// Each side names a rank of the other by its deadline, and nobody hangs.
TEST_F(NodeLinks, ACutForGood) {
  constexpr int cut = 1;
  constexpr auto timeout = 1500ms;
  Shared<Board> const board;
  Processes processes = start([&](Communicator& communicator) {
    Buffer buffer(communicator, node_options(problem_, timeout));
    ++board->ready;
    auto const error =
        expect_throw<Timeout>("calls over a link that is cut", [&] { check_until_failure(buffer, problem_); });
    bool const is_cut_off = node_of(communicator.rank()) == cut;
    check((node_of(error.peer()) == cut) != is_cut_off, "rank ", communicator.rank(), " names ", error.peer(), ": ",
          error.what());
    check_names(error, {name_of_rank(error.peer())});
    ++board->done;
    check(wait_until([&] { return board->done >= num_node_ranks; }, detection_bound), "other ranks never ended");
  });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->set_link(cut, false);
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

// Shorter than the deadline: calls end right, late.
TEST_F(NodeLinks, ACutForAWhile) {
  Shared<Board> const board;
  Processes processes = start_trips(*board);
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->set_link(2, false);
  std::this_thread::sleep_for(by_scale(1, 5) * 1s);
  int const before = board->done;
  namespaces_->set_link(2, true);
  EXPECT_TRUE(wait_until([&] { return board->done >= before + 3; })) << "the calls never went on";
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

// A firewall that lets through the ports that ranks meet at, and no others: making a buffer fails, and names a
// rank.
class NodeFirewalls : public NodeLinks, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(All, NodeFirewalls, testing::Bool(),
                         [](auto const& one) { return one.param ? "that_answer" : "that_do_not"; });

TEST_P(NodeFirewalls, BeforeDataEndpoints) {
  std::string const why_not = Namespaces::why_no_loss();
  if (!why_not.empty()) GTEST_SKIP() << why_not;
  Shared<Board> const board;
  Processes processes = start(
      [&](Communicator& communicator) {
        ++board->ready;
        check(wait_until([&] { return board->struck_ms != 0; }), "the test never began");
        auto const error =
            expect_throw<Error>("a buffer", [&] { Buffer const buffer(communicator, node_options(problem_)); });
        check(error.code() == ErrorCode::timeout || error.code() == ErrorCode::peer_lost, "error: ", error.what());
        check_names(error, {name_of_rank(error.peer())});
      },
      3000ms);
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->close_ports(GetParam());
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

class NodeLinksThatLose : public NodeLinks, public testing::WithParamInterface<int> {
 protected:
  void SetUp() override {
    NodeLinks::SetUp();
    if (IsSkipped()) return;
    std::string const why_not = Namespaces::why_no_loss();
    if (!why_not.empty()) GTEST_SKIP() << why_not;
  }
};

// Of a hundred packets. All is right, if later.
INSTANTIATE_TEST_SUITE_P(Percent, NodeLinksThatLose,
                         testing::ValuesIn(small_scale() ? std::vector{5} : std::vector{1, 5}));

TEST_P(NodeLinksThatLose, GiveRightResults) {
  Shared<Board> const board;
  Processes processes = start_trips(*board);
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->drop(GetParam());
  int const before = board->done;
  EXPECT_TRUE(wait_until([&] { return board->done >= before + by_scale(3, 10); }, 60s))
      << "the calls never went on";
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

// The last call of a rank ends before those of others, and what it has sent them may have to be sent twice when it
// has gone.
TEST_P(NodeLinksThatLose, LetProgramsEndRight) {
  Shared<Board> const board;
  Processes processes = start([&](Communicator& communicator) {
    Buffer buffer(communicator, node_options(problem_));
    ++board->ready;
    check(wait_until([&] { return board->struck_ms != 0; }), "the test never began");
    for (int i = 0; i < 3; ++i) round_trip(problem_, buffer);
  });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->drop(GetParam());
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

// At a fifth TCP gives up for seconds at a time. A result is right, or there is a Timeout that names a rank.
class NodeLinksThatLoseMany : public NodeLinksThatLose {};
INSTANTIATE_TEST_SUITE_P(Percent, NodeLinksThatLoseMany, testing::Values(20));

TEST_P(NodeLinksThatLoseMany, GiveRightResultsOrNone) {
  Shared<Board> const board;
  Processes processes = start([&](Communicator& communicator) {
    Buffer buffer(communicator, node_options(problem_, 3000ms));
    round_trip(problem_, buffer);
    ++board->ready;
    check(wait_until([&] { return board->struck_ms != 0; }), "the test never began");
    try {
      for (int i = 0; i < by_scale(1, 3); ++i) round_trip(problem_, buffer);
    } catch (Timeout const& error) {
      check(error.peer() >= 0 && error.peer() < num_node_ranks, "peer of the error: ", error.what());
      check_names(error, {name_of_rank(error.peer())});
    }
    ++board->done;
    check(wait_until([&] { return board->done >= num_node_ranks; }, 30s), "other ranks never ended");
  });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->drop(GetParam());
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

}  // namespace
}  // namespace switchyard::test
