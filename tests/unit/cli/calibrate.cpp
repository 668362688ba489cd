// `switchyard bench --calibrate` and the plan that reads what it wrote, as users run them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>

#include "support/scale.hpp"
#include "unit/cli/command.hpp"

namespace switchyard::cli {
namespace {

using json = nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;

constexpr char const* machine_file = R"(name: made up
gpus_per_node: 64
memory_gb: 4
calibration:
  date: "2026-11-30"
  version: "1.2"
  engine: cpu
  ranks: 4
  memories: 1
  cores: 2
  row_bytes: 7392
  throughput:
    least_tokens: 0
    most_tokens: 1024
    cache_mb: 30
    dispatch: {fixed_us: 40, cached_gbs: 90, memory_gbs: 30, spread: 0.1}
    combine: {fixed_us: 20, cached_gbs: 120, memory_gbs: 40, spread: 0.1}
  latency:
    least_tokens: 0
    most_tokens: 256
    cache_mb: 0
    dispatch: {fixed_us: 30, cached_gbs: 20, memory_gbs: 20, spread: 0.2}
    combine: {fixed_us: 25, cached_gbs: 30, memory_gbs: 30, spread: 0.2}
)";

class Calibrate : public CommandTest {
 protected:
  json plan(std::string const& options) { return CommandTest::plan("--cluster machine.yaml " + options); }
  // Where the machine is busy with something else, as with other tests, the most tokens may take no longer than
  // none, which the command refuses, saying that it is to be run again.
  Outcome calibrate(std::string const& options) {
    constexpr int attempts = 8;
    for (int attempt = 1;; ++attempt) {
      auto outcome = shell_.run("$S bench --calibrate machine.yaml --engine cpu --ranks 2 --tokens 0,16,64,256 " +
                                options + " --iterations 3 --warmup 1");
      if (outcome.status == 0 || attempt == attempts ||
          outcome.err.find("run it again when nothing else does") == std::string::npos)
        return outcome;
    }
  }
  // No hint follows.
  void refused(std::string const& command, std::string const& first, std::string const& second = "") {
    std::string const said = CommandTest::refused(command, first, second);
    EXPECT_EQ(std::ranges::count(said, '\n'), 1) << said;
  }
  // The same of a file that differs from a good one.
  void refused_file(std::string const& from, std::string const& to, std::string const& why) {
    std::string text = machine_file;
    auto const at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    shell_.write("machine.yaml", text.replace(at, from.size(), to));
    refused("plan --cluster machine.yaml --tokens 8", "machine.yaml: " + why);
  }
};

TEST_F(Calibrate, WritesAMachineThatAPlanReads) {
  int const hidden = test::by_scale(512, 4096);
  std::string const of_rows = "hidden " + std::to_string(hidden);
  auto const outcome = calibrate("--" + of_rows);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              AllOf(HasSubstr("cpu engine, 2 ranks that share 1 memory"), HasSubstr(of_rows + ", top-8 of 256"),
                    HasSubstr("throughput"), HasSubstr("latency"), HasSubstr("runs differ by"),
                    HasSubstr("next: switchyard plan --cluster machine.yaml")));
  auto const text = shell_.read("machine.yaml");
  auto const written = YAML::Load(text)["calibration"];
  EXPECT_EQ(written["ranks"].as<int>(), 2);
  EXPECT_EQ(written["memories"].as<int>(), 1);
  EXPECT_EQ(written["engine"].as<std::string>(), "cpu");
  EXPECT_EQ(written["row_bytes"].as<int>(), hidden + hidden / 128 * 4);
  EXPECT_EQ(written["latency"]["most_tokens"].as<int>(), 256);
  EXPECT_TRUE(std::regex_match(written["date"].as<std::string>(), std::regex("20[0-9]{2}-[0-9]{2}-[0-9]{2}")));
  EXPECT_THAT(text, AllOf(HasSubstr("# of a call that moves nothing"), HasSubstr(of_rows)));
  for (char const* const mode : {"throughput", "latency"})
    for (char const* const operation : {"dispatch", "combine"}) {
      auto const figures = written[mode][operation];
      EXPECT_GT(figures["cached_gbs"].as<double>(), 0) << mode << operation;
      EXPECT_GE(figures["cached_gbs"].as<double>(), figures["memory_gbs"].as<double>()) << mode << operation;
      EXPECT_GT(figures["spread"].as<double>(), 0) << mode << operation;
    }
  auto const all = plan("--tokens 32,128 --" + of_rows);
  ASSERT_EQ(all["cases"].size(), 4);
  EXPECT_EQ(all["calibration"]["ranks"], 2);
  for (auto const& each : all["cases"]) {
    EXPECT_EQ(each["ranks"], 2);
    EXPECT_EQ(each["widened"], json::array());
    EXPECT_LT(each["dispatch"]["low_us"], each["dispatch"]["us"]);
    EXPECT_GT(each["dispatch"]["parts_us"]["memory"], 0.0);
  }
}

// 4 ranks send a token to one expert each: 2 rows of 1024 bytes (latency: a row a slot) in all.
TEST_F(Calibrate, APlanIsWhatTheFileSays) {
  shell_.write("machine.yaml", machine_file);
  auto const all = plan("--tokens 1000 --hidden 7168 --top-k 1 --experts 4 --mode latency");
  auto const& combine = all["cases"][0]["combine"];
  EXPECT_EQ(all["cases"][0]["ranks"], 4);
  EXPECT_NEAR(combine["us"].get<double>(), 25 + 1000 * 4 * 2 * 14336 / 30e3, 1e-6);
  EXPECT_THAT(all["cases"][0]["widened"].dump(), HasSubstr("latency mode was calibrated with 0 to 256 tokens"));
  auto const text = shell_.run("$S plan --cluster machine.yaml --tokens 64").out;
  EXPECT_THAT(text, HasSubstr("on made up (cpu engine, calibrated on 2026-11-30 with 4 ranks)"));
  auto const more = plan("--tokens 64 --ranks 2,4,8");
  EXPECT_EQ(more["cases"].size(), 6);
}

// What data sheets say of other libraries' calls may be in the same file.
TEST_F(Calibrate, OtherLibrariesNeedAMachineThatIsKnown) {
  shell_.write("machine.yaml", machine_file);
  refused("plan --cluster machine.yaml --library deepep", "--library: expected switchyard, whose calls made up was",
          "seen deepep");
  shell_.write("machine.yaml", std::string("machine: h100\n") + machine_file);
  auto const all = plan("--tokens 64 --library deepep");
  EXPECT_FALSE(all.contains("calibration"));
}

TEST_F(Calibrate, RefusesFilesThatCannotBe) {
  refused_file("engine: cpu", "engin: cpu", "calibration.engin: no such key");
  refused_file("engine: cpu", "engine: 5", "calibration.engine: expected a text, seen 5");
  refused_file("ranks: 4", "ranks: 0", "calibration.ranks: expected a whole number from 1 to 64, seen 0");
  refused_file("ranks: 4", "ranks: 4.5", "calibration.ranks: expected a whole number");
  refused_file("  ranks: 4\n", "", "calibration.ranks: expected a number, seen none");
  refused_file("memories: 1", "memories: .inf", "calibration.memories: expected a whole number");
  refused_file("cache_mb: 30", "cache_mb: -1", "calibration.throughput.cache_mb: expected a number from 0");
  refused_file("cache_mb: 30", "cache: 30", "calibration.throughput.cache: no such key");
  refused_file("most_tokens: 256", "most_tokens: 0",
               "calibration.latency.most_tokens: expected more than least_tokens (0), seen 0");
  refused_file("fixed_us: 25", "fixed_us: .nan", "calibration.latency.combine.fixed_us: expected a number from 0");
  refused_file("memory_gbs: 40", "memory_gbs: 0",
               "calibration.throughput.combine.memory_gbs: expected a number from");
  refused_file("memory_gbs: 40", "memory_gb: 40", "calibration.throughput.combine.memory_gb: no such key");
  refused_file("spread: 0.2}\n    combine", "spread: -0.2}\n    combine",
               "calibration.latency.dispatch.spread: expected a number from 0 to 10, seen -0.2");
  refused_file("    combine: {fixed_us: 20, cached_gbs: 120, memory_gbs: 40, spread: 0.1}\n", "",
               "calibration.throughput.combine: expected keys and values, seen none");
  refused_file("calibration:\n", "calibration: 5\nx:\n", "x: no such key");
  refused_file("gpus_per_node: 64", "gpus_per_node: 64\nnodes: 2",
               "nodes: expected 1, which was calibrated, or hop_us");
  shell_.write("machine.yaml", "calibration: 5\n");
  refused("plan --cluster machine.yaml", "calibration: expected an object of keys and values, seen number");
}

TEST_F(Calibrate, RefusesOptionsThatCannotBe) {
  std::string const bench = "bench --calibrate machine.yaml --engine cpu --ranks 2 --hidden 128 ";
  refused(bench + "--tokens 64", "--tokens: with --calibrate expected 3 or more different counts", "seen 64");
  refused(bench + "--tokens 64,64,64", "--tokens: with --calibrate", "seen 64,64,64");
  refused(bench + "--tokens 0,64,2048", "low-latency mode: up to 1024), seen 0,64");
  refused(bench + "--mode latency", "--calibrate: expected no --mode");
  refused(bench + "--layout flat", "--calibrate: expected no --layout, seen flat");
  refused(bench + "--json out.json", "--calibrate: expected no --json and no --trace");
  refused(bench + "--nodes 2", "--calibrate: expected one node, seen --nodes 2");
  refused(bench + "--dtype f32", "--calibrate: expected --dtype fp8 or bf16, seen f32");
  refused("bench --calibrate nowhere/machine.yaml", "nowhere/machine.yaml: cannot be written");
  EXPECT_EQ(shell_.files(), 0);
}

}  // namespace
}  // namespace switchyard::cli
