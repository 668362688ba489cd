// What an endpoint leaves behind.
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "fabric/ends.hpp"
#include "support/scale.hpp"

namespace switchyard::test {
namespace {

std::ptrdiff_t descriptors() {
  std::filesystem::directory_iterator const all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

void use(Wish const& way) {
  Pair pair(way, 10000);
  post(pair.a, {pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 10000, 3, 4}, pair.both);
  ASSERT_TRUE(poll_until(pair.both, [&] { return pair.b.arrived[3] == 1 && pair.a.sent[4] == 1; }));
}

class FabricLifetime : public testing::TestWithParam<Wish> {};

TEST_P(FabricLifetime, LeavesNoDescriptorsAndNoMemory) {
  for (int i = 0; i < 3; ++i) use(GetParam());  // what is opened once, and heaps that have grown
  auto const open = descriptors();
  std::size_t const used = mallinfo2().uordblks;
  for (int i = 0; i < by_scale(8, 20); ++i) use(GetParam());
  EXPECT_EQ(descriptors(), open);
  // A single endpoint takes more. Sanitizers have an allocator, and a search for leaks, of their own.
  EXPECT_LT(mallinfo2().uordblks, used + 200000);
}

// A child of fork() has copies of everything; that it ends must not disturb its parent.
TEST_P(FabricLifetime, AChildThatEndsLeavesTheParentAlone) {
  Pair pair(GetParam(), 1000);
  Write const write{pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 1000, 3, 4};
  post(pair.a, write, pair.both);
  ASSERT_TRUE(poll_until(pair.both, [&] { return pair.b.arrived[3] == 1 && pair.a.sent[4] == 1; }));
  pid_t const child = fork();
  if (child == 0) {
    pair.a.region.reset();
    pair.b.region.reset();
    pair.a.endpoint.reset();
    pair.b.endpoint.reset();
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (int times = 2; times < 5; ++times) {
    post(pair.a, write, pair.both);
    ASSERT_TRUE(poll_until(pair.both, [&] { return pair.b.arrived[3] == times && pair.a.sent[4] == times; }));
  }
}

class FabricEnds : public testing::TestWithParam<Wish> {};

TEST_P(FabricEnds, EndsWithWritesUnderWay) {
  for (int i = 0; i < 5; ++i) {
    Pair pair(GetParam(), 4 << 20U);
    for (int posted = 0; posted < 3; ++posted) {
      post(pair.a, {pair.a.peer, pair.a.region.get(), 0, pair.a.target, 0, 4 << 20U, 3, 4}, pair.both);
    }
    pair.a.poll();
    pair.b.poll();
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, FabricLifetime, testing::ValuesIn(ways()), name_of_way);
INSTANTIATE_TEST_SUITE_P(Ways, FabricEnds, testing::ValuesIn(ways_that_survive()), name_of_way);

}  // namespace
}  // namespace switchyard::test
