// Ranks are stopped anywhere in their calls, go on later, and after a reset all is well. Or they are dead, or too
// late: then there is no reset.
#include <cstdlib>

#include "support/late.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

constexpr int reset_ranks = 3;

Case reset_case() {
  return {.launch = Launch::processes, .ranks = reset_ranks, .tokens = 64, .hidden = 512, .top_k = 3};
}

BufferOptions reset_options(Problem const& p) {
  BufferOptions options = options_for(p, 4);
  options.timeout = late_timeout();
  return options;
}

// Without checks, so that most of the time goes to the library.
void call_for_ever(Buffer& buffer, Problem const& p) {
  RankInputs const inputs(p, buffer.communicator().rank());
  for (;;) {
    Dispatched const received = buffer.dispatch(inputs.args());
    (void)buffer.combine(received.x, received.handle);
  }
}

int victim_of(int round) {
  return round % reset_ranks;
}

void go_through(Board& board, Problem const& p, Communicator& communicator, int rounds) {
  Buffer buffer(communicator, reset_options(p));
  for (int round = 0; round < rounds; ++round) {
    ++board.ready;
    (void)expect_throw<Timeout>("the loop", [&] { call_for_ever(buffer, p); });
    if (communicator.rank() != victim_of(round)) ++board.done;
    buffer.reset();
    check_equal(buffer.heap_bytes_used(), std::size_t{0}, "bytes that the failed call kept");
    round_trip(p, buffer);
  }
}

TEST(Reset, AfterAStopAnywhere) {
  Traces const traces;
  Problem const problem = make_problem(reset_case());
  Shared<Board> const board;
  int const rounds = by_scale(3, 9);
  Processes processes(reset_ranks, [&](Communicator& c) { go_through(*board, problem, c, rounds); });
  for (int round = 0; round < rounds; ++round) {
    ASSERT_TRUE(wait_until([&] { return board->ready >= reset_ranks * (round + 1); }))
        << "the ranks never got going";
    std::this_thread::sleep_for(7ms * (round + 1) + 131us * round);
    processes.signal(victim_of(round), SIGSTOP);
    ASSERT_TRUE(wait_until([&] { return board->done >= (reset_ranks - 1) * (round + 1); })) << "the others hang";
    processes.signal(victim_of(round), SIGCONT);
  }
  report(processes.wait(), "stops and resets");
  traces.expect_none();
}

TEST(Reset, NotWithADeadPeer) {
  Traces const traces;
  constexpr int victim = 1;
  Problem const problem = make_problem(reset_case());
  Shared<Board> const board;
  Processes processes(reset_ranks, [&](Communicator& communicator) {
    Buffer buffer(communicator, reset_options(problem));
    round_trip(problem, buffer);
    ++board->ready;
    if (communicator.rank() == victim) call_for_ever(buffer, problem);
    survive<PeerLost>(*board, victim, reset_ranks - 1, [&] { call_for_ever(buffer, problem); });
    for (int i = 0; i < 2; ++i) {
      auto const error = expect_throw<PeerLost>("a reset", [&] { buffer.reset(); });
      check_equal(error.peer(), victim, "peer of the error: ", error.what());
      (void)expect_throw<PeerLost>("a call after it", [&] { round_trip(problem, buffer); });
    }
    ++board->ready;
    check(wait_until([&] { return board->ready >= reset_ranks + reset_ranks - 1; }),
          "the other survivor never ended");
  });
  EXPECT_TRUE(wait_until([&] { return board->ready >= reset_ranks; })) << "the ranks never got going";
  processes.signal(victim, SIGKILL);
  expect_survivors(processes.wait(), victim, SIGKILL, "a reset with a dead peer");
  traces.expect_none();
}

// Later than a communicator waits: also the rank that comes too late learns that the others have gone on.
TEST(Reset, NotWithARankThatDoesNotCome) {
  Problem const problem = make_problem(reset_case());
  Shared<Board> const board;
  auto const impatient = [](int) { setenv("SWITCHYARD_RENDEZVOUS_TIMEOUT_MS", "1500", 1); };
  Processes processes(
      reset_ranks,
      [&](Communicator& communicator) {
        Buffer buffer(communicator, reset_options(problem));
        round_trip(problem, buffer);
        bool const late = communicator.rank() == 2;
        if (late) check(wait_until([&] { return board->done >= reset_ranks - 1; }), "the others never gave up");
        auto const error = expect_throw<Timeout>("a reset", [&] { buffer.reset(); });
        if (!late) check_equal(error.peer(), 2, "peer of the error: ", error.what());
        ++board->done;
        (void)expect_throw<Timeout>("a call after it", [&] { round_trip(problem, buffer); });
        check(wait_until([&] { return board->done >= reset_ranks; }), "the late rank never ended");
      },
      impatient);
  report(processes.wait(), "a rank that does not come");
}

}  // namespace
}  // namespace switchyard::test
