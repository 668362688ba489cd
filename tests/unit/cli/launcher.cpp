// The launcher ends with all its ranks, whatever becomes of them, and says what became of them.
#include "cli/launcher.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <thread>
#include <vector>

#include "switchyard/communicator.hpp"
#include "switchyard/error.hpp"

namespace switchyard::cli {
namespace {

using std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

struct Outcome {
  int status = 0;
  std::string said;  // on stderr
  milliseconds took{0};
};

Outcome run(std::function<int(RankContext const&)> const& body, int ranks = 4) {
  auto const begin = SteadyClock::now();
  testing::internal::CaptureStderr();
  int const status = run_local_ranks({.ranks = ranks, .grace = milliseconds{300}}, body);
  return {status, testing::internal::GetCapturedStderr(),
          std::chrono::duration_cast<milliseconds>(SteadyClock::now() - begin)};
}

// Neither zombies nor running children are left.
void expect_no_children() {
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

[[noreturn]] void hang() {
  for (;;) ::pause();
}

bool says(Outcome const& outcome, std::string const& text) {
  return outcome.said.find(text) != std::string::npos;
}

TEST(Launcher, AllRanksMeetAndReturn) {
  auto const outcome = run([](RankContext const& context) {
    for (int i = 0; i < 1000; ++i) context.barrier->wait(context.rank, milliseconds{20000});
    bool const complete =
        context.size == 4 && context.token.size() == 32 && context.address.starts_with("127.0.0.1:");
    return complete ? 0 : 1;
  });
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.said, "");
  expect_no_children();
}

TEST(Launcher, RanksAreDividedEvenlyInTheirOrder) {
  EXPECT_EQ(divide_into_nodes(4, 1), (std::vector{0, 0, 0, 0}));
  EXPECT_EQ(divide_into_nodes(4, 2), (std::vector{0, 0, 1, 1}));
  EXPECT_EQ(divide_into_nodes(5, 3), (std::vector{0, 0, 1, 1, 2}));
  EXPECT_EQ(divide_into_nodes(3, 3), (std::vector{0, 1, 2}));
}

TEST(Launcher, RanksPlayTheirNodes) {
  int const status = run_local_ranks({.ranks = 3, .nodes = 2}, [](RankContext const& context) {
    Communicator const job = Communicator::connect({.rank = context.rank,
                                                    .size = context.size,
                                                    .address = context.address,
                                                    .token = context.token,
                                                    .serve = false,
                                                    .node = context.node});
    return context.barrier == nullptr && job.node_by_rank() == std::vector{0, 0, 1} ? 0 : 1;
  });
  EXPECT_EQ(status, 0);
}

TEST(Launcher, NamesTheRankThatFailed) {
  auto const outcome = run([](RankContext const& context) { return context.rank == 2 ? 7 : 0; });
  EXPECT_EQ(outcome.status, 1);
  EXPECT_TRUE(says(outcome, "rank 2 exited with status 7")) << outcome.said;
  expect_no_children();
}

TEST(Launcher, PrintsWhatARankThrew) {
  auto const outcome = run([](RankContext const& context) -> int {
    if (context.rank == 1) throw Timeout("peer 3 is slow");
    return 0;
  });
  EXPECT_EQ(outcome.status, 1);
  EXPECT_TRUE(says(outcome, "rank 1: peer 3 is slow")) << outcome.said;
}

TEST(Launcher, WakesThoseWhoWaitForAKilledRank) {
  auto const outcome = run([](RankContext const& context) {
    if (context.rank == 3) ::kill(::getpid(), SIGKILL);
    context.barrier->wait(context.rank, milliseconds{60000});
    return 0;
  });
  EXPECT_EQ(outcome.status, 1);
  EXPECT_TRUE(says(outcome, "rank 3 was killed by signal 9")) << outcome.said;
  EXPECT_TRUE(says(outcome, "rank 0: rank 3 ended")) << outcome.said;
  EXPECT_LT(outcome.took, milliseconds{5000});
  expect_no_children();
}

TEST(Launcher, EndsThoseWhoHang) {
  auto const outcome = run([](RankContext const& context) -> int {
    if (context.rank == 0) return 1;
    if (context.rank == 1) std::signal(SIGTERM, SIG_IGN);
    if (context.rank == 2) ::kill(::getpid(), SIGSTOP);
    hang();
  });
  EXPECT_EQ(outcome.status, 1);
  EXPECT_TRUE(says(outcome, "rank 0 exited with status 1")) << outcome.said;
  EXPECT_TRUE(says(outcome, "ended by force")) << outcome.said;
  EXPECT_LT(outcome.took, milliseconds{10000});
  expect_no_children();
}

TEST(Launcher, PassesOnAnInterrupt) {
  pid_t const launcher = ::getpid();
  auto const outcome = run([launcher](RankContext const& context) -> int {
    if (context.rank == 0) ::kill(launcher, SIGINT);
    hang();
  });
  EXPECT_EQ(outcome.status, 128 + SIGINT);
  EXPECT_LT(outcome.took, milliseconds{10000});
  expect_no_children();
}

TEST(SharedBarrier, TimesOut) {
  auto const barrier = SharedBarrier::create(2);
  EXPECT_THROW(barrier->wait(0, milliseconds{20}), Timeout);
}

// Whoever gives up first names the rank that is late, and all who wait name the same.
TEST(SharedBarrier, NamesTheRankThatIsLate) {
  auto const barrier = SharedBarrier::create(3);
  std::array<int, 2> blamed{-1, -1};
  auto const wait_as = [&](int rank, int slot, milliseconds timeout) {
    try {
      barrier->wait(rank, timeout);
    } catch (Timeout const& error) {
      blamed[static_cast<std::size_t>(slot)] = error.peer();
    }
  };
  std::thread patient([&] { wait_as(0, 0, milliseconds{20000}); });
  wait_as(2, 1, milliseconds{200});
  patient.join();
  EXPECT_EQ(blamed, (std::array<int, 2>{1, 1}));
}

}  // namespace
}  // namespace switchyard::cli
