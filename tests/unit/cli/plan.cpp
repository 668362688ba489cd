// `switchyard plan` as users run it: what it prints, and what it says of input that cannot be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "support/scale.hpp"
#include "unit/cli/command.hpp"

namespace switchyard::cli {
namespace {

using json = nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;

class PlanCommand : public CommandTest {
 protected:
  void refused(std::string const& options, std::string const& first, std::string const& second = "") {
    CommandTest::refused("plan " + options, first, second);
  }
  void refused_cluster(std::string const& text, std::string const& first, std::string const& second = "") {
    shell_.write("cluster.json", text);
    refused("--cluster cluster.json --tokens 8", "cluster.json: " + first, second);
  }
};

TEST_F(PlanCommand, AnswersInText) {
  auto const outcome = shell_.run("$S plan --machine h100 --library deepep --ranks 8,16 --tokens 128");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("calls of deepep on h100"), HasSubstr("throughput"),
                                 HasSubstr("latency"), HasSubstr("choose"), HasSubstr("128 tokens a rank: ")));
}

TEST_F(PlanCommand, AnswersInJson) {
  auto const all = plan("--machine h200 --library deepep --ranks 8,16 --tokens 1,128 --mode latency");
  EXPECT_EQ(all["schema"], "switchyard-plan/1");
  ASSERT_EQ(all["cases"].size(), 4);
  ASSERT_EQ(all["choices"].size(), 2);
  for (auto const& each : all["cases"]) {
    bool const one_node = each["ranks"] == 8;
    EXPECT_EQ(each["nodes"], one_node ? 1 : 2);
    for (char const* const name : {"dispatch", "combine"}) {
      auto const& operation = each[name];
      EXPECT_LT(operation["low_us"], operation["us"]);
      EXPECT_LT(operation["us"], operation["high_us"]);
      EXPECT_EQ(operation["nic_bytes"] == 0.0, one_node);
    }
  }
}

// 7168 FP8 elements with 56 scales, to every rank of a node but its own: known without a plan.
TEST_F(PlanCommand, CountsBytes) {
  auto const all = plan("--library deepep --ranks 8 --tokens 64 --top-k 8 --routing balanced --mode latency");
  double const row = 7168 + 56 * 4 + 16;
  EXPECT_DOUBLE_EQ(all["cases"][0]["dispatch"]["link_bytes"], 64 * 7 * row);
  EXPECT_DOUBLE_EQ(all["cases"][0]["combine"]["link_bytes"], 64 * 7 * 14336.0);
}

TEST_F(PlanCommand, KnowsItsClusterByAFile) {
  shell_.write("cluster.json",
               R"({"name": "ours", "machine": "h100", "nodes": 4, "nics_per_node": 4, "nic_gbs": 25})");
  auto const all = plan("--cluster cluster.json --library deepep --tokens 128 --mode latency");
  EXPECT_EQ(all["machine"]["name"], "ours");
  EXPECT_DOUBLE_EQ(all["machine"]["nic_gbs_per_gpu"], 12.5);
  EXPECT_EQ(all["cases"].size(), 3);  // 8, 16 and 32 ranks
  auto const whole = plan("--machine h100 --ranks 32 --library deepep --tokens 128 --mode latency");
  EXPECT_GT(all["cases"][2]["dispatch"]["us"], whole["cases"][0]["dispatch"]["us"]);
}

TEST_F(PlanCommand, TakesRecordedRoutingsAndLoads) {
  // An .npy of 4 tokens to experts 0 and 1, all of rank 0.
  shell_.run(R"(printf '\223NUMPY\001\000\166\000' > routing.npy
printf "%-117s\n" "{'descr': '<i4', 'fortran_order': False, 'shape': (4, 2), }" >> routing.npy
printf '\000\000\000\000\001\000\000\000\000\000\000\000\001\000\000\000\000\000\000\000\001\000\000\000\000\000\000\000\001\000\000\000' >> routing.npy)");
  std::string const shape = "--library deepep --mode latency --tokens 64 --ranks 8 --top-k 2 --experts 16 ";
  auto const even = plan(shape + "--routing balanced")["cases"][0];
  auto const recorded = plan(shape + "--routing replay --routing-file routing.npy")["cases"][0];
  EXPECT_GT(recorded["dispatch"]["us"], even["dispatch"]["us"]);
  EXPECT_EQ(recorded["dispatch"]["median_rank_us"].get<double>() < recorded["dispatch"]["us"].get<double>(), true);
  shell_.write("loads.json", "[9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]");
  auto const loaded = plan(shape + "--routing loads --loads-file loads.json")["cases"][0];
  EXPECT_GT(loaded["dispatch"]["us"], even["dispatch"]["us"]);
  EXPECT_LT(loaded["dispatch"]["us"], recorded["dispatch"]["us"]);

  shell_.run("head -c 140 routing.npy > short.npy");
  refused(shape + "--routing replay --routing-file short.npy", "short.npy: ", "bytes of data seen");
  refused("--tokens 8 --ranks 8 --top-k 3 --experts 16 --routing replay --routing-file routing.npy",
          "2 ids a token, but top_k is 3");
  shell_.run("sed 's/\\x01\\x00\\x00\\x00/\\x10\\x00\\x00\\x00/' routing.npy > beyond.npy");
  refused(shape + "--routing replay --routing-file beyond.npy", "id 16 is not in -1..15");
  refused(shape + "--routing replay", "--routing-file: goes with --routing replay");
  refused(shape + "--routing-file routing.npy", "--routing-file: goes with --routing replay");
}

TEST_F(PlanCommand, RefusesLoadsThatCannotBe) {
  std::string const options = "--tokens 8 --ranks 2 --top-k 2 --experts 4 --routing loads --loads-file loads.json";
  for (auto const& [text, why] :
       {std::pair{"[1, 2, 3]", "expected a list of 4 loads, one for each expert, seen 3"},
        std::pair{"{}", "expected a list of 4 loads, one for each expert, seen object"},
        std::pair{"[1, 2, -3, 4]", "load of expert 2: expected a finite number, 0 or more, seen -3"},
        std::pair{"[1, null, 3, 4]", "load of expert 1: expected a finite number, 0 or more, seen null"},
        std::pair{"[1, NaN, 3, 4]", "a list of 4 finite numbers"},
        std::pair{"[1, 1e999, 3, 4]", "a list of 4 finite numbers"},
        std::pair{"[0, 0, 3, 0]", "expected 2 or more that are not 0"}}) {
    shell_.write("loads.json", text);
    refused(options, "--loads-file: ", why);
  }
}

TEST_F(PlanCommand, RefusesClustersThatCannotBe) {
  refused_cluster(R"({"machine": "h100", "link_gb": 3})", "link_gb: no such key", "did you mean link_gbs?");
  refused_cluster(R"({"machine": "h100", "link_gbs": -3})", "link_gbs: expected a number from 0.1 to", "seen -3");
  refused_cluster(R"({"machine": "h100", "nodes": 1.5})", "nodes: expected a whole number from 1 to", "seen 1.5");
  refused_cluster(R"({"machine": "h100", "nodes": "two"})", "nodes: expected a whole number", "seen \"two\"");
  refused_cluster(R"({"machine": "h10"})", "machine: expected one of h100", "seen 'h10'");
  refused_cluster(R"({"machine": 5})", "machine: expected a text, seen 5");
  refused_cluster(R"({"gpus_per_node": 8})", "sms: expected a number, or `machine`");
  refused_cluster(R"({"machine": "h100", "nic_gbs": 25})", "nic_gbs: expected together with nics_per_node");
  refused_cluster("[1]", "expected an object of keys and values, seen array");
  refused_cluster("{", "expected JSON");
  refused("--cluster nowhere.json", "nowhere.json: No such file");
  shell_.write("cluster.json", R"({"machine": "h100", "nodes": 2})");
  refused("--cluster cluster.json --ranks 17",
          "--ranks: expected at most 16, the GPUs of h100 (2 nodes of 8), seen 17");
  refused("--cluster cluster.json --machine h100", "--cluster: expected without --machine");
}

TEST_F(PlanCommand, ReadsYaml) {
  shell_.write("cluster.yaml", "machine: h100\nname: ours\nnodes: 2  # of eight\nhop_us: 5.5\n");
  auto const all = plan("--cluster cluster.yaml --library deepep --tokens 8 --mode latency");
  EXPECT_EQ(all["machine"]["name"], "ours");
  EXPECT_DOUBLE_EQ(all["machine"]["hop_us"], 5.5);
  EXPECT_EQ(all["cases"].size(), 2);
  for (auto const& [text, why] : {std::pair{"machine: h100\nhop: 3\n", "hop: no such key"},
                                  std::pair{"machine: h100\nhop_us: -3\n", "hop_us: expected a number from 0.1"},
                                  std::pair{"machine: h100\nhop_us: .nan\n", "hop_us: expected a number from 0.1"},
                                  std::pair{"machine: h100\nhop_us: '3'\n", "hop_us: expected a number from 0.1"},
                                  std::pair{"machine: h100\nmachine: h200\n", "machine: expected once, seen twice"},
                                  std::pair{"machine: [h100\n", "expected YAML: "},
                                  std::pair{"- 3\n", "expected an object of keys and values, seen array"}}) {
    shell_.write("cluster.yml", text);
    refused("--cluster cluster.yml", std::string("cluster.yml: ") + why);
  }
}

TEST_F(PlanCommand, RefusesOptionsThatCannotBe) {
  refused("--machine h1000", "machine: expected one of h100", "seen 'h1000'");
  refused("--library deepeep", "library: expected one of switchyard", "did you mean deepep?");
  refused("--model deepseek-v9", "--model: expected one of deepseek-v3", "did you mean deepseek-v3?");
  refused("--library pplx --mode throughput", "pplx has no throughput mode");
  refused("--ranks 0", "--ranks: expected a whole number from 1 to 2048, seen '0'");
  refused("--tokens 8,,9", "--tokens: expected a whole number");
  refused("--top-k 9 --experts 8", "--top-k: expected at most 8, the experts there are, seen 9");
  refused("--sms 133 --ranks 8 --tokens 8", "sms: expected 0..132, those of h100, seen 133");
  refused("--json nowhere/plan.json", "nowhere/plan.json: cannot be written");
}

// At full size, as many ranks as a job can have: experts are there several times, and the answer comes soon.
TEST_F(PlanCommand, AnswersForTheLargestJobs) {
  int const ranks = test::by_scale(512, 2048);
  std::string const tokens = test::small_scale() ? "1,8" : "128,4096";
  auto const all = plan("--ranks " + std::to_string(ranks) + " --tokens " + tokens);
  ASSERT_EQ(all["cases"].size(), 4);
  EXPECT_EQ(all["cases"][0]["nodes"], ranks / 8);
  EXPECT_EQ(all["cases"][0]["replicas"], ranks / 256);
  EXPECT_EQ(all["cases"][0]["experts"], ranks);
}

}  // namespace
}  // namespace switchyard::cli
