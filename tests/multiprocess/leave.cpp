// Ranks that leave orderly, jobs one after another, and what they leave behind in the process.
#include <fstream>

#include "support/casualty.hpp"

namespace switchyard::test {
namespace {

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] auto const& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

std::size_t threads_alive() {
  std::size_t count = 0;
  for ([[maybe_unused]] auto const& entry : std::filesystem::directory_iterator("/proc/self/task")) ++count;
  return count;
}

// Lines of /proc/self/maps that show a symmetric heap.
std::size_t mapped_memfds() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("memfd:") != std::string::npos ? 1 : 0;
  return count;
}

class Leave : public testing::TestWithParam<Launch> {};

// A rank whose function ends, or throws, has left: waiting for it is hopeless.
TEST_P(Leave, TheOthersLoseARankThatLeaves) {
  Traces const traces;
  Case const c{.launch = GetParam(), .ranks = 3};
  Problem const p = make_problem(c);
  for (int const leaver : {0, 2}) {
    Shared<Board> const board;
    run_ranks(c.launch, c.ranks, text("leaver ", leaver), [&](Communicator& communicator) {
      Buffer buffer(communicator, options_for(p));
      round_trip(p, buffer);
      if (communicator.rank() == leaver) return;
      survive<PeerLost>(*board, leaver, c.ranks - 1, [&] { round_trip(p, buffer); });
    });
  }
  traces.expect_none();
}

TEST_P(Leave, AnExceptionInOneRankReachesTheOthers) {
  Traces const traces;
  Case const c{.launch = GetParam(), .ranks = 3};
  Problem const p = make_problem(c);
  std::vector<Outcome> const outcomes = launch_ranks(c.launch, c.ranks, [&](Communicator& communicator) {
    Buffer buffer(communicator, options_for(p));
    if (communicator.rank() == 1) throw std::runtime_error("expert failed");
    (void)expect_throw<PeerLost>("an exception elsewhere", [&] { round_trip(p, buffer); });
  });
  EXPECT_TRUE(outcomes[0].ok) << outcomes[0].what;
  EXPECT_EQ(outcomes[1].what, "expert failed");
  EXPECT_TRUE(outcomes[2].ok) << outcomes[2].what;
  traces.expect_none();
}

INSTANTIATE_TEST_SUITE_P(All, Leave, testing::Values(Launch::threads, Launch::processes),
                         [](auto const& one) { return std::string(name_of(one.param)); });

TEST(Leaks, JobsInOneProcessLeaveNothing) {
  Traces const traces;
  Case const c{.ranks = 4};
  ASSERT_TRUE(run_case(c));
  std::size_t const descriptors = open_descriptors();
  std::size_t const threads = threads_alive();
  for (int i = 0; i < by_scale(3, 10); ++i) ASSERT_TRUE(run_case(c));
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_EQ(threads_alive(), threads);
  EXPECT_EQ(mapped_memfds(), 0U);
  traces.expect_none();
}

TEST(Leaks, ManyBuffersInOneJobLeaveNothing) {
  Case const c{.ranks = 2};
  Problem const p = make_problem(c);
  run_ranks(Launch::processes, c.ranks, c, [&](Communicator& communicator) {
    std::size_t descriptors = 0;
    std::size_t threads = 0;
    for (int i = 0; i < 12; ++i) {
      {
        Buffer buffer(communicator, options_for(p));
        round_trip(p, buffer);
      }
      if (i == 1) descriptors = open_descriptors();
      if (i == 1) threads = threads_alive();
    }
    check_equal(open_descriptors(), descriptors, "open descriptors");
    check_equal(threads_alive(), threads, "threads");
    check_equal(mapped_memfds(), 0U, "heaps that are still mapped");
  });
}

// Every rank contributes and everybody sees it, whatever the sizes.
TEST(Collectives, AllGatherAndBarrier) {
  for (Launch const launch : {Launch::threads, Launch::processes}) {
    run_ranks(launch, 5, name_of(launch), [](Communicator& communicator) {
      for (std::size_t round = 0; round < 20; ++round) {
        std::size_t const bytes = round * static_cast<std::size_t>(communicator.rank()) * 1000;
        std::vector<std::byte> const mine(bytes, static_cast<std::byte>(communicator.rank()));
        auto const all = communicator.all_gather(mine);
        check_equal(all.size(), 5U, "ranks");
        for (std::size_t r = 0; r < all.size(); ++r) {
          std::vector<std::byte> const expected(round * r * 1000, static_cast<std::byte>(r));
          check(all[r] == expected, "bytes of rank ", r, " in round ", round);
        }
        communicator.barrier();
      }
    });
  }
}

}  // namespace
}  // namespace switchyard::test
