// Calls over nodes when ranks are killed: the others throw PeerLost, soon, with the name of the one that died, and
// nothing stays behind.
#include "support/descriptors.hpp"
#include "support/node_calls.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

class NodeKill : public Nodes {
 protected:
  using Body = std::function<void(Communicator&, Board&)>;

  // Kills `victims` when all ranks are ready, and a while later. Their peers must have noticed when they end.
  void kill_later(std::vector<int> const& victims, std::chrono::microseconds delay, Body const& body) {
    Traces const traces;
    Shared<Board> const board;
    Processes processes = start([&](Communicator& communicator) { body(communicator, *board); });
    int const survivors = num_node_ranks - static_cast<int>(victims.size());
    ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
    std::this_thread::sleep_for(delay);
    auto const struck = now_ms();
    for (int const victim : victims) processes.signal(victim, SIGKILL);
    EXPECT_TRUE(wait_until([&] { return board->done >= survivors; }, detection_bound)) << "survivors hang";
    RecordProperty("ms_to_detection", static_cast<int>(now_ms() - struck));
    expect_others_well(processes.wait(detection_bound), victims, SIGKILL);
    traces.expect_none();
  }

  // One rank kills itself when it has got to some point of `steps`.
  void die_in(int victim, std::function<void(Buffer&, Problem const&, bool is_victim)> const& steps) {
    Traces const traces;
    Problem const problem = make_problem(node_case());
    Shared<Board> const board;
    Processes processes = start([&](Communicator& communicator) {
      Buffer buffer(communicator, node_options(problem));
      bool const is_victim = communicator.rank() == victim;
      if (is_victim) steps(buffer, problem, true);
      survive_on_nodes<PeerLost>(*board, victim, [&] { steps(buffer, problem, false); });
    });
    expect_others_well(processes.wait(detection_bound), {victim}, SIGKILL);
    traces.expect_none();
  }
};

// Rank 0, which serves the store, and the first and the last rank of other nodes.
class NodeKillOf : public NodeKill, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Victims, NodeKillOf,
                         testing::ValuesIn(small_scale() ? std::vector{0, 5} : std::vector{0, 2, 5}));

TEST_P(NodeKillOf, InALoopOfRoundTrips) {
  Problem const problem = make_problem(node_case());
  Random random(fresh_seed());
  auto const delay = std::chrono::microseconds{random.below(60'000)};
  int const victim = GetParam();
  kill_later({victim}, delay, [&](Communicator& communicator, Board& board) {
    Buffer buffer(communicator, node_options(problem));
    round_trip(problem, buffer);
    ++board.ready;
    if (communicator.rank() == victim) check_until_failure(buffer, problem);
    survive_on_nodes<PeerLost>(board, victim, [&] { check_until_failure(buffer, problem); });
  });
  if (HasFailure())
    std::printf("delay %d us, SWITCHYARD_TEST_SEED=%llu\n", static_cast<int>(delay.count()),
                static_cast<unsigned long long>(fresh_seed()));
}

TEST_P(NodeKillOf, InALargeCall) {
  Problem const problem = make_problem(large_node_case());
  int const victim = GetParam();
  Random random(fresh_seed());
  kill_later({victim}, std::chrono::microseconds{random.below(100'000)},
             [&](Communicator& communicator, Board& board) {
               Buffer buffer(communicator, node_options(problem));
               ++board.ready;
               if (communicator.rank() == victim) call_until_failure(buffer, problem);
               survive_on_nodes<PeerLost>(board, victim, [&] { call_until_failure(buffer, problem); });
             });
}

TEST_F(NodeKill, BetweenDispatchAndCombine) {
  die_in(3, [](Buffer& buffer, Problem const& p, bool is_victim) {
    RankInputs const inputs(p, buffer.communicator().rank());
    Dispatched const received = buffer.dispatch(inputs.args());
    if (is_victim) die();
    (void)buffer.combine(received.x, received.handle);
  });
}

TEST_F(NodeKill, BetweenRoundTrips) {
  die_in(4, die_between_round_trips);
}

TEST_F(NodeKill, WithWorkInFlight) {
  die_in(1, die_with_work_in_flight);
}

TEST_F(NodeKill, BeforeItMakesItsBuffer) {
  Traces const traces;
  Problem const problem = make_problem(node_case());
  Shared<Board> const board;
  constexpr int victim = 2;
  Processes processes = start([&](Communicator& communicator) {
    if (communicator.rank() == victim) die();
    survive_on_nodes<PeerLost>(*board, victim, [&] { Buffer const buffer(communicator, node_options(problem)); });
  });
  expect_others_well(processes.wait(detection_bound), {victim}, SIGKILL);
  traces.expect_none();
}

// Whoever is in a call learns of it while ranks that it waits for first are still between calls; these learn of it
// when they make theirs.
TEST_F(NodeKill, WhileANodeIsBetweenCalls) {
  Problem const problem = make_problem(node_case());
  constexpr int victim = 3;
  kill_later({victim}, 20ms, [&](Communicator& communicator, Board& board) {
    Buffer buffer(communicator, node_options(problem));
    round_trip(problem, buffer);
    ++board.ready;
    if (communicator.rank() == victim) std::this_thread::sleep_for(60s);
    int const others = num_node_ranks - 1 - per_node;
    if (node_of(communicator.rank()) == 0)
      check(wait_until([&] { return board.done >= others; }, detection_bound), "those in the call never noticed");
    survive_on_nodes<PeerLost>(board, victim, [&] { round_trip(problem, buffer); });
  });
}

// No reset without it, and all say who it was.
TEST_F(NodeKill, NoResetBringsItBack) {
  Problem const problem = make_problem(node_case());
  constexpr int victim = 4;
  Shared<Board> const again;
  kill_later({victim}, 10ms, [&](Communicator& communicator, Board& board) {
    Buffer buffer(communicator, node_options(problem));
    ++board.ready;
    if (communicator.rank() == victim) call_until_failure(buffer, problem);
    survive_on_nodes<PeerLost>(board, victim, [&] { call_until_failure(buffer, problem); });
    lose_one<PeerLost>({victim}, [&] { buffer.reset(); });
    lose_one<PeerLost>({victim}, [&] { round_trip(problem, buffer); });
    ++again->done;
    check(wait_until([&] { return again->done >= num_node_ranks - 1; }, detection_bound), "others never ended");
  });
}

// The same processes make a new job without it, whose nodes are not alike any more.
TEST_F(NodeKill, SurvivorsMakeANewJob) {
  Problem const problem = make_problem(node_case());
  constexpr int victim = 3;
  Case c = node_case();
  c.ranks = num_node_ranks - 1;
  c.nodes = {0, 0, 1, 2, 2};
  Problem const smaller = make_problem(c);
  CommunicatorOptions options;
  options.size = c.ranks;
  options.address = Namespaces::address(0) + ":" + std::to_string(free_port());
  options.token = "of those that are left";
  kill_later({victim}, 10ms, [&](Communicator& communicator, Board& board) {
    {
      Buffer buffer(communicator, node_options(problem));
      ++board.ready;
      if (communicator.rank() == victim) call_until_failure(buffer, problem);
      survive_on_nodes<PeerLost>(board, victim, [&] { call_until_failure(buffer, problem); });
    }
    CommunicatorOptions mine = options;
    mine.rank = communicator.rank() - (communicator.rank() > victim ? 1 : 0);
    Communicator again = Communicator::connect(mine);
    Buffer buffer(again, node_options(smaller));
    for (int i = 0; i < 3; ++i) round_trip(smaller, buffer);
  });
}

// What a buffer had of the system goes with it, also when it has failed.
TEST_F(NodeKill, LeavesNoDescriptors) {
  Problem const problem = make_problem(node_case());
  constexpr int victim = 2;
  kill_later({victim}, 10ms, [&](Communicator& communicator, Board& board) {
    { Buffer const first(communicator, node_options(problem)); }
    auto const before = num_open_descriptors();
    {
      Buffer buffer(communicator, node_options(problem));
      round_trip(problem, buffer);
    }
    check(num_open_descriptors() <= before, "a buffer has left descriptors open");
    {
      Buffer buffer(communicator, node_options(problem));
      ++board.ready;
      if (communicator.rank() == victim) call_until_failure(buffer, problem);
      survive_on_nodes<PeerLost>(board, victim, [&] { call_until_failure(buffer, problem); });
    }
    check(num_open_descriptors() <= before, "a buffer that has failed has left descriptors open");
  });
}

// All ranks of a node at once. Each is a victim, and each may be named.
class NodeKillAll : public NodeKill, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Nodes, NodeKillAll, testing::ValuesIn(small_scale() ? std::vector{0} : std::vector{0, 1}));

TEST_P(NodeKillAll, RanksOfANode) {
  Problem const problem = make_problem(node_case());
  std::vector<int> victims;
  for (int rank = 0; rank < num_node_ranks; ++rank)
    if (node_of(rank) == GetParam()) victims.push_back(rank);
  kill_later(victims, 10ms, [&](Communicator& communicator, Board& board) {
    Buffer buffer(communicator, node_options(problem));
    ++board.ready;
    if (node_of(communicator.rank()) == GetParam()) check_until_failure(buffer, problem);
    lose_one<PeerLost>(victims, [&] { check_until_failure(buffer, problem); });
    ++board.done;
    check(wait_until([&] { return board.done >= num_node_ranks - per_node; }), "other survivors never ended");
  });
}

// Programs end when they get such an error. Who goes first is not taken for the one that was lost.
TEST_F(NodeKill, SurvivorsLeaveAtOnce) {
  Problem const problem = make_problem(node_case());
  std::vector<int> const victims{3};
  kill_later(victims, 15ms, [&](Communicator& communicator, Board& board) {
    Buffer buffer(communicator, node_options(problem));
    ++board.ready;
    if (communicator.rank() == victims.front()) call_until_failure(buffer, problem);
    lose_one<PeerLost>(victims, [&] { call_until_failure(buffer, problem); });
    ++board.done;
  });
}

}  // namespace
}  // namespace switchyard::test
