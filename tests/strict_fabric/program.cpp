// The tests of libfabric's transport over providers that demand what NICs demand (strict.hpp), and whole jobs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "fabric/ends.hpp"
#include "unit/cli/shell.hpp"

namespace switchyard::test {
namespace {

// Before the ways are listed, which happens while static objects are made.
[[gnu::constructor(101)]] void choose_library() {
  ::setenv("SWITCHYARD_LIBFABRIC", STRICT_FABRIC, 1);
}

TEST(FabricStrict, SlingshotIsAskedForImmediates) {
  auto const nics = chosen_of({"cxi", {}, "127.0.0.1", Counting::automatic});
  ASSERT_EQ(nics.size(), 1U);
  EXPECT_TRUE(nics[0].counts_remotely);
}

TEST(FabricStrict, WhatTheUserSaysOfSlingshotStays) {
  (void)transport::libfabric::report({});  // after which nothing more is set
  ::setenv("FI_CXI_ENABLE_WRITEDATA", "0", 1);
  auto const nics = chosen_of({"cxi", {}, "127.0.0.1", Counting::automatic});
  ::setenv("FI_CXI_ENABLE_WRITEDATA", "1", 1);
  ASSERT_EQ(nics.size(), 1U);
  EXPECT_FALSE(nics[0].counts_remotely);
}

TEST(FabricStrict, HardwareIsPreferredInTheOrderOfThePolicy) {
  auto const nics = chosen_of({"", {}, "127.0.0.1", Counting::automatic});
  ASSERT_FALSE(nics.empty());
  EXPECT_EQ(nics[0].provider, "cxi");
}

// That these providers see what is wrong: otherwise nothing that they let pass means anything.
TEST(FabricStrictDeath, AnEndpointThatEndsBeforeItsMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto const end_too_early = [] {
    End end(EndpointOptions{{"cxi", {}, "127.0.0.1", Counting::remote}}, 1000);
    end.endpoint.reset();
  };
  EXPECT_DEATH(end_too_early(), "strict provider: an endpoint is closed before memory that is bound to it");
}

struct Job {
  char const* provider;
  char const* options;
};

void PrintTo(Job const& job, std::ostream* out) {
  *out << job.provider << job.options;
}

class FabricStrictJobs : public testing::TestWithParam<Job> {};

TEST_P(FabricStrictJobs, EveryValueIsRight) {
  cli::Shell shell;
  auto const ended = shell.run(std::string("SWITCHYARD_FABRIC_PROVIDER='") + GetParam().provider +
                               "' $S bench --nodes 2 --ranks 4 --engine cpu --iterations 3 --warmup 1 --check " +
                               GetParam().options);
  EXPECT_EQ(ended.status, 0) << ended.err;  // 2 where there were no such provider
  EXPECT_THAT(ended.out, testing::HasSubstr("checked: every received byte and every combined value"));
}

constexpr char const* throughput = " --tokens 200 --hidden 1024 ";
constexpr char const* low_latency = " --mode latency --tokens 1,16 --hidden 512 ";

INSTANTIATE_TEST_SUITE_P(Providers, FabricStrictJobs,
                         testing::Values(Job{"cxi", throughput}, Job{"cxi", low_latency}, Job{"efa", throughput},
                                         Job{"efa", low_latency}, Job{"verbs;ofi_rxm", throughput},
                                         Job{"verbs;ofi_rxm", low_latency}, Job{"strictest", throughput},
                                         Job{"strictest", low_latency}));

}  // namespace
}  // namespace switchyard::test
