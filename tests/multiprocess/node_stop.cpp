// Calls over nodes when a rank is stopped (SIGSTOP): all others throw a Timeout that names it, and none of those
// that merely wait. When it goes on, a reset brings the buffer back.
#include "control/signal_delay.hpp"
#include "support/descriptors.hpp"
#include "support/node_calls.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

// Of calls: those that are to fail take it, and no other should.
constexpr milliseconds node_deadline{1500};

// Of the same buffer, and soon checked: checks are no calls, and others wait meanwhile.
Problem few_tokens_of(Problem const& p) {
  Case c = p.the;
  c.tokens = std::min<std::int64_t>(c.tokens, 16);
  return make_problem(c);
}

// What a rank does until it fails.
using Calls = std::function<void(Buffer&, Problem const&)>;

class NodeStop : public Nodes {
 protected:
  // Rank after rank is stopped while it is anywhere in `calls`; each time all throw, reset, and go on with right
  // values.
  void stop_one_after_another(Problem const& problem, std::vector<int> const& victims, Calls const& calls) {
    Traces const traces;
    Shared<Board> const board;
    Random random(fresh_seed());
    Problem const few = few_tokens_of(problem);
    Processes processes = start([&](Communicator& communicator) {
      Buffer buffer(communicator, node_options(problem, node_deadline));
      round_trip(few, buffer);
      auto const before = num_open_descriptors();
      for (int const victim : victims) go_through(*board, buffer, {problem, few, calls}, victim);
      check(num_open_descriptors() <= before, "resets have left descriptors open");
    });
    int round = 0;
    for (int const victim : victims) {
      ++round;
      ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks * round; })) << "ranks never got going";
      std::this_thread::sleep_for(5ms + std::chrono::microseconds{random.below(50'000)});
      processes.signal(victim, SIGSTOP);
      EXPECT_TRUE(wait_until([&] { return board->done >= (num_node_ranks - 1) * round; }, detection_bound))
          << "survivors hang, victim " << victim;
      processes.signal(victim, SIGCONT);
    }
    for (Outcome const& outcome : processes.wait())
      EXPECT_TRUE(outcome.ok) << outcome.what << "\n  SWITCHYARD_TEST_SEED=" << fresh_seed();
    traces.expect_none();
  }

  // Stops a rank that is in its calls, which all others must survive.
  static void stop_for_good(Processes& processes, Board const& board, int victim) {
    ASSERT_TRUE(wait_until([&] { return board.ready >= num_node_ranks; })) << "the ranks never got going";
    std::this_thread::sleep_for(15ms);
    processes.signal(victim, SIGSTOP);
    EXPECT_TRUE(processes.wait_for(num_node_ranks - 1, detection_bound)) << "survivors hang";
    processes.signal(victim, SIGKILL);
    expect_others_well(processes.wait(), {victim}, SIGKILL);
  }

 private:
  struct Course {
    Problem const& problem;
    Problem const& few;
    Calls const& calls;
  };
  static void go_through(Board& board, Buffer& buffer, Course const& course, int victim) {
    auto const until_failure = [&] { course.calls(buffer, course.problem); };
    ++board.ready;
    if (buffer.communicator().rank() == victim) {
      (void)expect_throw<Timeout>("the calls of the one that was stopped", until_failure);
    } else {
      try {
        lose_one<Timeout>({victim}, until_failure);
        ++board.done;
      } catch (...) {
        ++board.done;
        throw;
      }
    }
    buffer.reset();
    check_equal(buffer.heap_bytes_used(), std::size_t{0}, "bytes that the failed call kept");
    for (int i = 0; i < 2; ++i) round_trip(course.few, buffer);
  }
};

TEST_F(NodeStop, AnywhereInRoundTrips) {
  stop_one_after_another(make_problem(node_case()), small_scale() ? std::vector{0} : std::vector{0, 1, 2, 5},
                         [](Buffer& buffer, Problem const& p) { call_until_failure(buffer, p); });
}

// Most of the time chunks and credits are under way.
TEST_F(NodeStop, WhileRowsCross) {
  if (small_scale()) GTEST_SKIP() << "at normal scale only";
  Problem const problem = make_problem(large_node_case());
  stop_one_after_another(problem, {4, 1}, [](Buffer& buffer, Problem const& p) { call_until_failure(buffer, p); });
}

// Most of the time ranks of a node wait for one another's announcements and answers.
TEST_F(NodeStop, WhileANodeAgrees) {
  Case c = node_case();
  c.seed = fresh_seed();
  c.layout = OutputLayout::expanded;
  stop_one_after_another(make_problem(c), small_scale() ? std::vector{5} : std::vector{2, 5},
                         [](Buffer& buffer, Problem const& p) {
                           set_signal_delays(p.the.seed, 5000);
                           try {
                             call_until_failure(buffer, p);
                           } catch (Error const&) {
                             set_signal_delays(0, 0);
                             throw;
                           }
                         });
}

// It has not made its calls when those of the others wait, which are under way.
TEST_F(NodeStop, BeforeItsCalls) {
  Problem const problem = make_problem(node_case());
  stop_one_after_another(problem, {3}, [](Buffer& buffer, Problem const& p) {
    RankInputs const inputs(p, buffer.communicator().rank());
    if (buffer.communicator().rank() == 3) std::this_thread::sleep_for(100ms);
    for (;;) {
      std::vector<Pending<Dispatched>> pending;
      for (int i = 0; i < 3; ++i) pending.push_back(buffer.dispatch_async(inputs.args()));
      for (Pending<Dispatched>& one : pending) one.event().wait();
    }
  });
}

// Programs end when they get such an error. Who goes first is not taken for the one that was stopped.
TEST_F(NodeStop, SurvivorsLeaveAtOnce) {
  if (small_scale()) GTEST_SKIP() << "at normal scale only";
  Problem const problem = make_problem(node_case());
  constexpr int victim = 2;
  Shared<Board> const board;
  Processes processes = start([&](Communicator& communicator) {
    Buffer buffer(communicator, node_options(problem, node_deadline));
    ++board->ready;
    if (communicator.rank() == victim) call_until_failure(buffer, problem);
    lose_one<Timeout>({victim}, [&] { call_until_failure(buffer, problem); });
  });
  stop_for_good(processes, *board, victim);
}

// No reset without it, and all say who it is.
TEST_F(NodeStop, NoResetWhileItIsStopped) {
  if (small_scale()) GTEST_SKIP() << "at normal scale only";
  Problem const problem = make_problem(node_case());
  constexpr int victim = 5;
  Shared<Board> const board;
  auto const body = [&](Communicator& communicator) {
    Buffer buffer(communicator, node_options(problem, node_deadline));
    ++board->ready;
    if (communicator.rank() == victim) call_until_failure(buffer, problem);
    lose_one<Timeout>({victim}, [&] { call_until_failure(buffer, problem); });
    lose_one<Timeout>({victim}, [&] { buffer.reset(); });
    (void)expect_throw<Timeout>("a call after it", [&] { round_trip(problem, buffer); });
  };
  Processes processes = start(body, node_deadline);
  stop_for_good(processes, *board, victim);
}

// All tokens go to one rank, which stops to take them; and it alone sends, and stops.
class NodeStopOneSided : public NodeStop, public testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(Receives, NodeStopOneSided,
                         testing::ValuesIn(small_scale() ? std::vector{true} : std::vector{true, false}));

TEST_P(NodeStopOneSided, InTheMiddle) {
  Case c = large_node_case();
  c.tokens = 2048;
  c.routing = GetParam() ? Routing::one_expert : Routing::uniform;
  c.counts = GetParam() ? Tokens::equal : Tokens::first_only;
  stop_one_after_another(make_problem(c), {0}, [](Buffer& buffer, Problem const& p) {
    RankInputs const inputs(p, buffer.communicator().rank());
    for (;;) (void)buffer.dispatch(inputs.args());
  });
}

// A rank that pauses between its letters and those of others, while no tokens cross: its neighbours may go on, and
// must not overwrite what it has not read.
TEST_F(NodeStop, APauseWhileNoTokensCross) {
  Case c = node_case();
  c.routing = Routing::none;
  Problem const problem = make_problem(c);
  Shared<Board> const board;
  int const rounds = by_scale(20, 60);
  Processes processes = start([&](Communicator& communicator) {
    Buffer buffer(communicator, node_options(problem));
    ++board->ready;
    for (;;) {
      for (int i = 0; i < 20; ++i) round_trip(problem, buffer);
      std::byte const mine{board->struck_ms == 0 ? std::uint8_t{1} : std::uint8_t{0}};
      if (communicator.all_gather({&mine, 1})[0][0] != std::byte{1}) break;
    }
  });
  ASSERT_TRUE(wait_until([&] { return board->ready >= num_node_ranks; })) << "the ranks never got going";
  Random random(fresh_seed());
  for (int i = 0; i < rounds; ++i) {
    int const victim = random.between(0, num_node_ranks - 1);
    std::this_thread::sleep_for(std::chrono::microseconds{random.below(5'000)});
    processes.signal(victim, SIGSTOP);
    std::this_thread::sleep_for(20ms);
    processes.signal(victim, SIGCONT);
  }
  board->struck_ms = now_ms();
  for (Outcome const& outcome : processes.wait())
    EXPECT_TRUE(outcome.ok) << outcome.what << "\n  SWITCHYARD_TEST_SEED=" << fresh_seed();
}

}  // namespace
}  // namespace switchyard::test
