// How ranks agree on a kind of GPU memory: by what each could make, not by what it has. No GPU is needed for that.
#include "node/gpu_memory_choice.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "bootstrap/in_process_store.hpp"
#include "node/node.hpp"
#include "support/meeting.hpp"

namespace switchyard {
namespace {

using test::plenty;
using test::run_threads;

constexpr int num_ranks = 3;
using Kinds = std::vector<GpuMemoryKind>;

// What the ranks of a job would find: by rank, the kinds that it cannot have.
struct Machine {
  std::vector<Kinds> missing = std::vector<Kinds>(num_ranks);
  ErrorCode code = ErrorCode::system;

  [[nodiscard]] std::optional<Refusal> attempt(int rank, GpuMemoryKind kind) const {
    for (GpuMemoryKind const each : missing[static_cast<std::size_t>(rank)])
      if (each == kind) return Refusal{code, "the driver said no"};
    return std::nullopt;
  }
};

struct Result {
  std::optional<GpuMemoryKind> kind;
  Refusal refusal;
  Kinds tried;
};

class GpuMemoryChoice : public testing::Test {
 protected:
  void SetUp() override { unsetenv(variable); }
  void TearDown() override { unsetenv(variable); }

  static constexpr char const* variable = "SWITCHYARD_GPU_MEMORY";

  static std::vector<Result> choose(Machine const& machine) {
    auto const store = std::make_shared<InProcessStore>();
    std::vector<Result> results(num_ranks);
    run_threads(num_ranks, [&](int rank) {
      Node node(store, rank, num_ranks, plenty);
      Result& result = results[static_cast<std::size_t>(rank)];
      auto const attempt = [&](GpuMemoryKind kind) {
        result.tried.push_back(kind);
        return machine.attempt(rank, kind);
      };
      auto const refusal = refusal_of([&] { result.kind = choose_gpu_memory(node, attempt); });
      if (refusal) result.refusal = *refusal;
      node.barrier();  // nobody is left behind in a round
    });
    return results;
  }

  static void expect_all(Machine const& machine, GpuMemoryKind kind) {
    for (Result const& result : choose(machine)) EXPECT_EQ(result.kind, kind) << result.refusal.text;
  }
};

TEST_F(GpuMemoryChoice, TheFirstThatWorksAndNoMoreTrials) {
  for (Result const& result : choose({})) {
    EXPECT_EQ(result.kind, GpuMemoryKind::fd);
    EXPECT_EQ(result.tried, Kinds{GpuMemoryKind::fd});
  }
}

TEST_F(GpuMemoryChoice, OneRankThatCannotMovesAll) {
  Machine machine;
  machine.missing[1] = {GpuMemoryKind::fd};
  expect_all(machine, GpuMemoryKind::fabric);
  machine.missing[2] = {GpuMemoryKind::fabric};
  expect_all(machine, GpuMemoryKind::ipc);
}

TEST_F(GpuMemoryChoice, NoneThatAllHaveNamesRanksAndReasons) {
  Machine machine;
  machine.missing = {{GpuMemoryKind::fabric}, {GpuMemoryKind::fd, GpuMemoryKind::fabric}, {GpuMemoryKind::ipc}};
  for (Result const& result : choose(machine)) {
    EXPECT_FALSE(result.kind);
    EXPECT_EQ(result.refusal.code, ErrorCode::unsupported);
    for (char const* const part :
         {"fd: rank 1: the driver", "fabric: rank 0: the driver", "ipc: rank 2: the driver"})
      EXPECT_THAT(result.refusal.text, testing::HasSubstr(part));
  }
}

TEST_F(GpuMemoryChoice, ForcedByTheSetting) {
  setenv(variable, "ipc", 1);
  for (Result const& result : choose({})) {
    EXPECT_EQ(result.kind, GpuMemoryKind::ipc);
    EXPECT_EQ(result.tried, Kinds{GpuMemoryKind::ipc});
  }
}

TEST_F(GpuMemoryChoice, ForcedButRefused) {
  setenv(variable, "fabric", 1);
  Machine machine;
  machine.missing[0] = {GpuMemoryKind::fabric};
  for (Result const& result : choose(machine)) {
    EXPECT_EQ(result.refusal.code, ErrorCode::unsupported);
    EXPECT_THAT(result.refusal.text, testing::HasSubstr("fabric: rank 0: the driver said no"));
    EXPECT_THAT(result.refusal.text, testing::HasSubstr("fd: rank 0: SWITCHYARD_GPU_MEMORY=fabric"));
  }
}

TEST_F(GpuMemoryChoice, ASettingThatDoesNotParse) {
  setenv(variable, "posix", 1);
  for (Result const& result : choose({})) {
    EXPECT_EQ(result.refusal.code, ErrorCode::invalid_argument);
    EXPECT_THAT(result.refusal.text, testing::HasSubstr("auto|fd|fabric|ipc"));
    EXPECT_TRUE(result.tried.empty());
  }
}

// That memory has run out is for making the segment to say: another kind would have no more of it.
TEST_F(GpuMemoryChoice, OutOfMemoryIsNoReasonForAnotherKind) {
  Machine machine;
  machine.missing[2] = {GpuMemoryKind::fd};
  machine.code = ErrorCode::out_of_memory;
  expect_all(machine, GpuMemoryKind::fd);
}

}  // namespace
}  // namespace switchyard
