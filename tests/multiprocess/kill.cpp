// A rank is killed: the others throw PeerLost, soon, and nothing stays behind.
#include "support/casualty.hpp"

namespace switchyard::test {
namespace {

constexpr int kill_ranks = 4;

Case kill_case() {
  return {.launch = Launch::processes,
          .ranks = kill_ranks,
          .tokens = 64,
          .counts = Tokens::equal,
          .hidden = 256,
          .experts = 16,
          .top_k = 4};
}

// `victim` dies at the point of `steps` that it chooses; the others must lose it there or later.
class Kill : public testing::TestWithParam<int> {
 protected:
  using Steps = std::function<void(Buffer&, Problem const&, bool is_victim)>;

  static void run(Steps const& steps) {
    Traces const traces;
    Problem const problem = make_problem(kill_case());
    Shared<Board> const board;
    int const victim = GetParam();
    Processes processes(kill_ranks, [&](Communicator& communicator) {
      Buffer buffer(communicator, options_for(problem, 4));
      bool const is_victim = communicator.rank() == victim;
      if (is_victim) steps(buffer, problem, true);
      survive<PeerLost>(*board, victim, kill_ranks - 1, [&] { steps(buffer, problem, false); });
    });
    expect_survivors(processes.wait(), victim, SIGKILL, text("victim ", victim));
    traces.expect_none();
  }
};

TEST_P(Kill, BeforeADispatch) {
  run([](Buffer& buffer, Problem const& p, bool is_victim) {
    if (is_victim) die();
    round_trip(p, buffer);
  });
}

TEST_P(Kill, BetweenDispatchAndCombine) {
  run([](Buffer& buffer, Problem const& p, bool is_victim) {
    RankInputs const inputs(p, buffer.communicator().rank());
    Dispatched const received = buffer.dispatch(inputs.args());
    if (is_victim) die();
    (void)buffer.combine(received.x, received.handle);
  });
}

TEST_P(Kill, BetweenRoundTrips) {
  run(die_between_round_trips);
}

TEST_P(Kill, WithWorkInFlight) {
  run(die_with_work_in_flight);
}

TEST_P(Kill, BeforeAWorstCaseDispatch) {
  run([](Buffer& buffer, Problem const& p, bool is_victim) {
    if (is_victim) die();
    RankInputs const inputs(p, buffer.communicator().rank());
    DispatchArgs args = inputs.args();
    args.num_worst_tokens = 64 * kill_ranks;
    (void)buffer.dispatch(args);
  });
}

TEST_P(Kill, BeforeABarrier) {
  Problem const problem = make_problem(kill_case());
  Shared<Board> const board;
  int const victim = GetParam();
  Processes processes(kill_ranks, [&](Communicator& communicator) {
    communicator.barrier();
    if (communicator.rank() == victim) die();
    survive<PeerLost>(*board, victim, kill_ranks - 1, [&] { communicator.barrier(); });
  });
  expect_survivors(processes.wait(), victim, SIGKILL, text("victim ", victim));
}

TEST_P(Kill, BeforeItMakesItsBuffer) {
  Problem const problem = make_problem(kill_case());
  Shared<Board> const board;
  int const victim = GetParam();
  Processes processes(kill_ranks, [&](Communicator& communicator) {
    if (communicator.rank() == victim) die();
    survive<PeerLost>(*board, victim, kill_ranks - 1,
                      [&] { Buffer const buffer(communicator, options_for(problem)); });
  });
  expect_survivors(processes.wait(), victim, SIGKILL, text("victim ", victim));
}

// The first and the last; rank 0 serves the store.
INSTANTIATE_TEST_SUITE_P(Victim, Kill, testing::Values(0, kill_ranks - 1));

// A rank that never turns up: the others give up at the deadline of the rendezvous.
TEST(KillEarly, BeforeItJoins) {
  Traces const traces;
  for (int const victim : {0, 2}) {
    Processes processes(
        kill_ranks, [](Communicator&) { throw CheckFailed("joined without a rank"); },
        [victim](int rank) {
          setenv("SWITCHYARD_RENDEZVOUS_TIMEOUT_MS", "1500", 1);
          setenv("SWITCHYARD_TIMEOUT_MS", "1500", 1);
          if (rank == victim) die();
        });
    std::vector<Outcome> const outcomes = processes.wait(std::chrono::seconds{30});
    for (Outcome const& outcome : outcomes) {
      EXPECT_FALSE(outcome.ok);
      EXPECT_EQ(outcome.what.find("HANG"), std::string::npos) << outcome.what;
      EXPECT_EQ(outcome.what.find("joined"), std::string::npos) << outcome.what;
    }
  }
  traces.expect_none();
}

// In a loop of dispatch and combine without checks, so that most of the time goes to the library.
void loop(Board& board, Problem const& p, Buffer& buffer) {
  RankInputs const inputs(p, buffer.communicator().rank());
  CombineInputs const outputs(p, buffer.communicator().rank(), {});
  std::vector<std::byte> x(index(outputs.rows() * p.the.hidden) * size_of(p.the.combine_dtype));
  ++board.ready;
  for (;;) {
    Dispatched const received = buffer.dispatch(inputs.args());
    (void)buffer.combine({x.data(), p.the.combine_dtype, {outputs.rows(), p.the.hidden}}, received.handle);
  }
}

void kill_at_random(Problem const& problem, int victim, std::chrono::microseconds delay) {
  Shared<Board> const board;
  Processes processes(kill_ranks, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(problem, 4));
    if (communicator.rank() == victim) loop(*board, problem, buffer);
    survive<PeerLost>(*board, victim, kill_ranks - 1, [&] { loop(*board, problem, buffer); });
  });
  EXPECT_TRUE(wait_until([&] { return board->ready >= kill_ranks; })) << "the ranks never got going";
  std::this_thread::sleep_for(delay);
  processes.signal(victim, SIGKILL);
  EXPECT_TRUE(wait_until([&] { return board->done >= kill_ranks - 1; }, detection_bound)) << "survivors hang";
  expect_survivors(processes.wait(detection_bound), victim, SIGKILL,
                   text("victim ", victim, " delay ", delay.count(), " us, SWITCHYARD_TEST_SEED=", fresh_seed()));
}

TEST(KillAtRandom, InALoopOfDispatchAndCombine) {
  Traces const traces;
  Random random(fresh_seed());
  for (int i = 0; i < by_scale(4, 15) && !testing::Test::HasFailure(); ++i) {
    Case c = kill_case();
    c.layout = random.chance(50) ? OutputLayout::expanded : OutputLayout::flat;
    c.cast = random.chance(50);
    c.workers = random.between(1, 2);
    int const victim = random.between(0, kill_ranks - 1);
    kill_at_random(make_problem(c), victim, std::chrono::microseconds{random.below(40'000)});
  }
  traces.expect_none();
}

}  // namespace
}  // namespace switchyard::test
