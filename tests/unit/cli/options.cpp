// Options of `switchyard bench`.
#include "cli/bench/options.hpp"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <string>
#include <vector>

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

TEST(BenchOptions, TakesSeveralCountsOfTokensAndNone) {
  auto const options = parse("--tokens 0,16,128");
  EXPECT_NO_THROW(validate(options));
  EXPECT_EQ(options.token_counts, (std::vector<std::int64_t>{0, 16, 128}));
  EXPECT_EQ(parse("--tokens 0").problem.tokens, 0);
}

TEST(BenchOptions, OfTheLatencyMode) {
  auto const by_default = parse("--mode latency");
  EXPECT_NO_THROW(validate(by_default));
  EXPECT_EQ(by_default.latency.tokens, (std::vector<std::int64_t>{1, 8, 32, 64, 128, 256}));
  EXPECT_EQ(by_default.latency.iterations, 200);
  auto const given = parse(
      "--mode latency --tokens 2,128 --layout rank --dtype fp8-cast --cast ue8m0 --coding logfmt10 --any-pointer "
      "--iterations 7");
  EXPECT_NO_THROW(validate(given));
  EXPECT_EQ(given.latency.tokens, (std::vector<std::int64_t>{2, 128}));
  EXPECT_EQ(given.latency.layout, SlotLayout::rank_major);
  EXPECT_EQ(given.latency.cast, SendCast::fp8_ue8m0);
  EXPECT_EQ(given.latency.coding, CombineCoding::logfmt10);
  EXPECT_FALSE(given.latency.zero_copy);
  EXPECT_EQ(given.latency.iterations, 7);
}

TEST(BenchOptions, RefusesWhatIsOutOfRange) {
  for (char const* const text :
       {"--ranks 0", "--ranks 2049", "--ranks two", "--tokens -1", "--tokens 4k", "--tokens 8,,9", "--coding zip",
        "--hidden -1", "--top-k 65", "--experts 0", "--dtype int8", "--iterations 0", "--routing random",
        "--layout", "--timeout-ms -1", "--seed -1", "--unknown 1", "stray"}) {
    EXPECT_THROW(parse(text), CLI::ParseError) << text;
  }
}

// What is said of an option's value; empty when it is taken.
std::string refusal(std::string const& flag, std::string const& value) {
  CLI::App app;
  BenchOptions options;
  add_bench_options(app, options);
  try {
    app.parse(std::vector<std::string>{value, flag});  // from the last to the first
  } catch (CLI::ParseError const& error) {
    return error.what();
  }
  return "";
}

TEST(BenchOptions, EveryNumberIsReadInTheSameWay) {
  CLI::App app;
  BenchOptions options;
  add_bench_options(app, options);
  int numbers = 0;
  for (CLI::Option const* option : app.get_options()) {
    std::string const flag = option->get_name();
    if (!option->get_type_name().starts_with("INT") && flag != "--tokens") continue;
    ++numbers;
    for (std::string const value :
         {"1.5", "1e3", "0x10", "+1", " 1", "-2", "x", "18446744073709551616", "99999999999999999999999999"}) {
      std::string const said = refusal(flag, value);
      EXPECT_TRUE(said.starts_with(flag + ": expected a whole number from ")) << said;
      EXPECT_TRUE(said.ends_with(", seen '" + value + "'")) << said;
    }
  }
  EXPECT_EQ(numbers, 14);
}

TEST(BenchOptions, TheLargestSeedIsASeed) {
  EXPECT_EQ(parse("--seed 18446744073709551615").problem.seed, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(refusal("--seed", "18446744073709551616"),
            "--seed: expected a whole number from 0 to 18446744073709551615, seen '18446744073709551616'");
}

TEST(BenchOptions, NodesAreNoMoreThanRanksAndNoneIsTooLarge) {
  EXPECT_EQ(parse("").nodes, 0);
  for (char const* const text : {"", "--nodes 1", "--ranks 64", "--nodes 8", "--nodes 2 --ranks 128"})
    EXPECT_NO_THROW(validate_forked(parse(text))) << text;
  EXPECT_THROW(validate_forked(parse("--nodes 9")), InvalidArgument);
  EXPECT_THROW(validate_forked(parse("--ranks 65")), InvalidArgument);
  EXPECT_THROW(validate_forked(parse("--nodes 2 --ranks 129")), InvalidArgument);
}

TEST(BenchOptions, RefusesContradictions) {
  EXPECT_THROW(validate(parse("--tokens 1,8 --trace trace.json")), InvalidArgument);
  EXPECT_THROW(validate(parse("--layout rank")), InvalidArgument);
  EXPECT_THROW(validate(parse("--mode latency --layout flat")), InvalidArgument);
  EXPECT_THROW(validate(parse("--mode latency --cast ue8m0")), InvalidArgument);
  EXPECT_THROW(validate(parse("--mode latency --tokens 8,16 --max-tokens 8")), InvalidArgument);
  EXPECT_THROW(validate(parse("--routing replay")), InvalidArgument);
  EXPECT_THROW(validate(parse("--routing-file ids.npy")), InvalidArgument);
  EXPECT_NO_THROW(validate(parse("--routing replay --routing-file ids.npy")));
}

}  // namespace
}  // namespace switchyard::cli
