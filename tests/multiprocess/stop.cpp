// A rank is stopped (SIGSTOP) but lives: the others run into the deadline that they were given.
#include "support/casualty.hpp"

namespace switchyard::test {
namespace {

using namespace std::chrono_literals;

constexpr int stop_ranks = 3;
constexpr auto deadline = 1500ms;

Case stop_case() {
  return {.launch = Launch::processes, .ranks = stop_ranks, .tokens = 32, .hidden = 128, .top_k = 3};
}

BufferOptions with_timeout(Problem const& p, std::chrono::milliseconds timeout) {
  BufferOptions options = options_for(p, 4);
  options.timeout = timeout;
  return options;
}

// Until it fails.
void trip_for_ever(Board& board, Problem const& p, Buffer& buffer) {
  ++board.ready;
  for (;;) round_trip(p, buffer);
}

void be_a_survivor(Board& board, Problem const& p, Buffer& buffer, int victim) {
  survive<Timeout>(board, victim, stop_ranks - 1, [&] { trip_for_ever(board, p, buffer); });
  check(now_ms() - board.struck_ms >= deadline.count() - 500, "gave up early");
}

// After SIGCONT it finds that the others gave up.
void be_the_victim(Board& board, Problem const& p, Buffer& buffer) {
  auto const error = expect_throw<Error>("the victim", [&] { trip_for_ever(board, p, buffer); });
  check(error.code() == ErrorCode::timeout || error.code() == ErrorCode::peer_lost, error.what());
}

void stop_one(int victim, int then) {
  Problem const problem = make_problem(stop_case());
  Shared<Board> const board;
  Processes processes(stop_ranks, [&](Communicator& communicator) {
    Buffer buffer(communicator, with_timeout(problem, deadline));
    if (communicator.rank() == victim) return be_the_victim(*board, problem, buffer);
    be_a_survivor(*board, problem, buffer, victim);
  });
  EXPECT_TRUE(wait_until([&] { return board->ready >= stop_ranks; })) << "the ranks never got going";
  std::this_thread::sleep_for(20ms);
  board->struck_ms = now_ms();
  processes.signal(victim, SIGSTOP);
  EXPECT_TRUE(wait_until([&] { return board->done >= stop_ranks - 1; }, detection_bound)) << "survivors hang";
  processes.signal(victim, then);
  expect_survivors(processes.wait(detection_bound), victim, then == SIGKILL ? SIGKILL : 0, text("victim ", victim));
}

TEST(Stop, TheOthersTimeOutAndItIsKilled) {
  Traces const traces;
  for (int const victim : {0, 1, 2}) stop_one(victim, SIGKILL);
  traces.expect_none();
}

TEST(Stop, ItGoesOnAndFindsTheOthersGone) {
  Traces const traces;
  for (int const victim : {0, 2}) stop_one(victim, SIGCONT);
  traces.expect_none();
}

// Rank 0 decides when it is enough.
bool go_on(Communicator& communicator, Board const& board) {
  std::byte const mine{board.struck_ms == 0 ? std::uint8_t{1} : std::uint8_t{0}};
  return communicator.all_gather({&mine, 1})[0][0] == std::byte{1};
}

// A pause that is shorter than the deadline is no fault.
TEST(Stop, AShortPauseIsForgiven) {
  Problem const problem = make_problem(stop_case());
  Shared<Board> const board;
  Processes processes(stop_ranks, [&](Communicator& communicator) {
    Buffer buffer(communicator, with_timeout(problem, 30s));
    ++board->ready;
    do {
      round_trip(problem, buffer);
    } while (go_on(communicator, *board));
  });
  EXPECT_TRUE(wait_until([&] { return board->ready >= stop_ranks; })) << "the ranks never got going";
  processes.signal(1, SIGSTOP);
  std::this_thread::sleep_for(400ms);
  processes.signal(1, SIGCONT);
  std::this_thread::sleep_for(50ms);
  board->struck_ms = now_ms();
  report(processes.wait(), "a pause of 400 ms");
}

}  // namespace
}  // namespace switchyard::test
