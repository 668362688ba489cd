// Options of `switchyard bench`.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "cli/bench_options.hpp"
#include "switchyard/error.hpp"

namespace switchyard::cli {
namespace {

BenchOptions parse(std::string const& text) {
  CLI::App app;
  BenchOptions options;
  add_bench_options(app, options);
  app.parse(text);
  return options;
}

TEST(BenchOptions, DefaultsAreDeepSeekV3) {
  auto const options = parse("");
  EXPECT_EQ(options.problem.ranks, 8);
  EXPECT_EQ(options.problem.tokens, 4096);
  EXPECT_EQ(options.problem.hidden, 7168);
  EXPECT_EQ(options.problem.top_k, 8);
  EXPECT_EQ(options.problem.experts, 256);
  EXPECT_EQ(options.problem.payload, Payload::fp8);
  EXPECT_TRUE(options.check);
  EXPECT_NO_THROW(validate(options));
}

TEST(BenchOptions, EveryChoiceIsTaken) {
  for (auto const payload : {Payload::fp8, Payload::fp8_cast, Payload::bf16, Payload::f16, Payload::f32}) {
    EXPECT_EQ(parse("--dtype " + std::string(name_of(payload))).problem.payload, payload);
  }
  EXPECT_EQ(parse("--routing group-limited").routing, RoutingKind::group_limited);
  EXPECT_EQ(parse("--layout expanded").problem.layout, OutputLayout::expanded);
  EXPECT_EQ(parse("--launch fork").launch, Launch::fork);
  EXPECT_FALSE(parse("--no-check").check);
}

TEST(BenchOptions, RefusesWhatIsOutOfRange) {
  for (char const* const text :
       {"--ranks 0", "--ranks 65", "--ranks two", "--tokens 0", "--tokens 4k", "--hidden -1", "--top-k 65",
        "--experts 0", "--dtype int8", "--iterations 0", "--routing random", "--layout", "--timeout-ms -1",
        "--seed -1", "--unknown 1", "stray"}) {
    EXPECT_THROW(parse(text), CLI::ParseError) << text;
  }
}

TEST(BenchOptions, RefusesContradictions) {
  EXPECT_THROW(validate(parse("--mode latency")), Unsupported);
  EXPECT_THROW(validate(parse("--routing replay")), InvalidArgument);
  EXPECT_THROW(validate(parse("--routing-file ids.npy")), InvalidArgument);
  EXPECT_NO_THROW(validate(parse("--routing replay --routing-file ids.npy")));
}

}  // namespace
}  // namespace switchyard::cli
