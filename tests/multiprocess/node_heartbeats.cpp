// What errors say of the machine of a rank that is late: it answers, and its process is stopped; or it is silent.
#include "support/node_calls.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

constexpr auto heartbeat_deadline = 5000ms;  // more than a silence takes to be called one

bool says(Error const& error, std::string_view text) {
  return std::string_view(error.what()).find(text) != std::string_view::npos;
}

// A board, and how many survivors said that the machine is silent.
struct SilenceBoard : Board {
  std::atomic<int> silent{0};
};

class NodeHeartbeats : public Nodes {
 protected:
  // All go on with `calls` until they fail. Those of the survivors must name a victim, and none may say that a
  // machine answers that is `silent`, or the other way round. Who is on the victim's node says neither.
  using Calls = std::function<void(Communicator&, Board&)>;
  [[nodiscard]] Processes start_calls(SilenceBoard& board, std::vector<int> const& victims, bool silent,
                                      Calls const& calls) const {
    auto const body = [&board, victims, silent, calls](Communicator& communicator) {
      if (std::ranges::find(victims, communicator.rank()) != victims.end()) {
        (void)expect_throw<Timeout>("the calls of a victim", [&] { calls(communicator, board); });
        return;
      }
      auto const error = lose_one<Timeout>(victims, [&] { calls(communicator, board); });
      bool const says_silent = says(error, "; its machine has not answered for ");
      check(silent ? !says(error, "; its machine answered ") : !says_silent,
            "what it says of the machine: ", error.what());
      if (says_silent) ++board.silent;
      ++board.done;
      int const survivors = num_node_ranks - static_cast<int>(victims.size());
      check(wait_until([&] { return board.done >= survivors; }), "the other survivors never ended");
    };
    return start(body, heartbeat_deadline);
  }
};

void meet_until_failure(Communicator& communicator, Board& board) {
  ++board.ready;
  for (;;) communicator.barrier();
}

void trip_until_failure(Communicator& communicator, Board& board) {
  Problem const problem = make_problem(node_case());
  Buffer buffer(communicator, node_options(problem, heartbeat_deadline));
  ++board.ready;
  check_until_failure(buffer, problem);
}

// It is given its deadline, however long it is silent itself.
TEST_F(NodeHeartbeats, AStoppedRankAnswersFromItsMachine) {
  constexpr int victim = 3;
  for (auto const& calls : {meet_until_failure, trip_until_failure}) {
    Shared<SilenceBoard> const board;
    Processes processes = start_calls(*board, {victim}, false, calls);
    ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
    processes.signal(victim, SIGSTOP);
    EXPECT_TRUE(processes.wait_for(num_node_ranks - 1, detection_bound * 2)) << "survivors hang";
    processes.signal(victim, SIGKILL);
    expect_others_well(processes.wait(), {victim}, SIGKILL);
  }
}

// As a machine without power: nothing ends a connection to it.
TEST_F(NodeHeartbeats, AMachineThatIsCutOffIsSilent) {
  constexpr int cut = 2;
  std::vector<int> victims;
  for (int rank = 0; rank < num_node_ranks; ++rank)
    if (node_of(rank) == cut) victims.push_back(rank);
  for (auto const& calls : {meet_until_failure, trip_until_failure}) {
    Shared<SilenceBoard> const board;
    Processes processes = start_calls(*board, victims, true, calls);
    ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
    namespaces_->set_link(cut, false);
    for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
    namespaces_->set_link(cut, true);
    // Nobody of its node is left to say nothing.
    EXPECT_EQ(board->silent, num_node_ranks - static_cast<int>(victims.size()))
        << "survivors that say that the machine is silent";
  }
}

// Nobody calls while the link is down, for longer than a silence takes to be called one: nothing has happened.
TEST_F(NodeHeartbeats, ACutBetweenCallsIsNotSeen) {
  Shared<Board> const board;
  Processes processes = start([&](Communicator& communicator) {
    Problem const problem = make_problem(node_case());
    Buffer buffer(communicator, node_options(problem));
    round_trip(problem, buffer);
    communicator.barrier();
    ++board->ready;
    check(wait_until([&] { return board->struck_ms != 0; }), "the link never came back");
    round_trip(problem, buffer);
    communicator.barrier();
  });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  namespaces_->set_link(1, false);
  std::this_thread::sleep_for(by_scale(1, 5) * 1s);
  namespaces_->set_link(1, true);
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait()) EXPECT_TRUE(outcome.ok) << outcome.what;
}

}  // namespace
}  // namespace switchyard::test
