// Reports say what was measured: here of a GPU that was not there, with numbers that are easy to follow.
#include "cli/bench/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/bench/gather.hpp"

namespace switchyard::cli {
namespace {

using testing::HasSubstr;

// Phases of two iterations: 1, 2, 3, ... and then twice as much.
void set_phases(Samples& samples, Part part) {
  for (int const scale : {1, 2}) {
    for (std::size_t at = 1; at <= phase_names(part).size(); ++at)
      samples.of(Clock::phases, part).push_back(static_cast<double>(at) * scale);
  }
}

Samples samples_of_gpu() {
  Samples samples;
  samples.of(Clock::device, Part::dispatch) = {10, 30};
  samples.of(Clock::device, Part::combine) = {20, 40};
  samples.of(Clock::device, Part::copy) = {100, 100};
  samples.of(Clock::device, Part::layout) = {4, 6};
  samples.of(Clock::device, Part::empty_dispatch) = {6, 8};
  samples.of(Clock::device, Part::empty_combine) = {4, 6};
  for (Part const part : {Part::dispatch, Part::combine, Part::layout}) set_phases(samples, part);
  samples.of(Clock::none, Part::pss) = {3 << 20};
  samples.of(Clock::none, Part::heap_peak) = {5};
  return samples;
}

Report report_of_gpu() {
  BenchOptions options;
  options.problem = {.ranks = 2, .tokens = 8, .hidden = 128, .top_k = 1, .experts = 2, .payload = Payload::bf16};
  Case const of(
      options, [](Problem const& problem) { return make_routing(problem, RoutingKind::all_to_one); }, 8);
  Samples slower = samples_of_gpu();
  slower.of(Clock::device, Part::dispatch) = {50, 10};
  Report report{.options = options, .engine = EngineKind::cuda};
  report.cases.push_back(make_case_report(of, {samples_of_gpu(), slower}));
  return report;
}

TEST(Report, OfAGpuHasItsPhases) {
  auto const said = to_json(report_of_gpu());
  EXPECT_EQ(said["dispatch"]["median_us"], 40);  // of 50 and 30, the slowest of each iteration
  EXPECT_EQ(said["dispatch"]["recv_bytes_per_rank"], 8 * 256);
  EXPECT_EQ(said["dispatch"]["gbps_per_rank"], 8 * 256 / 40.0 / 1e3);
  EXPECT_EQ(said["ceiling"]["copy_kind"], "cudaMemcpy inside the GPU");
  EXPECT_EQ(said["ceiling"]["copy_gbps"], (128 << 20) / 100.0 / 1e3);
  EXPECT_EQ(said["fixed"].dump(), R"({"dispatch":{"median_us":7.0,"p99_us":7.98,"max_us":8.0},)"
                                  R"("combine":{"median_us":5.0,"p99_us":5.98,"max_us":6.0}})");
  EXPECT_EQ(said["tokens"], 8);
  EXPECT_FALSE(said.contains("cases"));
  EXPECT_EQ(said["memory"]["heap_peak_bytes_per_rank"], 5);
  EXPECT_EQ(
      said["gpu"].dump(),
      R"({"layout_median_us":5.0,)"
      R"("dispatch_phases_median_us":{"launch":1.5,"count":3.0,"agree":4.5,"answer":6.0,"move":7.5,"close":9.0},)"
      R"("combine_phases_median_us":{"launch":1.5,"stage":3.0,"agree":4.5,"sum":6.0,"close":7.5},)"
      R"("layout_phases_median_us":{"launch":1.5,"count":3.0}})");
  EXPECT_THAT(
      to_table(report_of_gpu()),
      HasSubstr(
          "dispatch on the GPU, median us a rank: launch 1.5 count 3.0 agree 4.5 answer 6.0 move 7.5 close 9.0\n"
          "combine on the GPU, median us a rank: launch 1.5 stage 3.0 agree 4.5 sum 6.0 close 7.5\n"
          "layout on the GPU, median us a rank: launch 1.5 count 3.0\n"
          "fixed cost: 7.0 us a dispatch, 5.0 us a combine (medians of calls of no tokens)\n"
          "layout alone: 5.0 us\n"
          "memory: 3 MiB a rank"));
}

TEST(Report, OfSeveralCasesHasThemAll) {
  Report report = report_of_gpu();
  report.options.token_counts = {0, 8};
  report.cases.push_back(report.cases[0]);
  report.cases[0].problem.tokens = 0;
  auto const said = to_json(report);
  EXPECT_FALSE(said.contains("tokens"));
  ASSERT_EQ(said["cases"].size(), 2U);
  EXPECT_EQ(said["cases"][0]["tokens"], 0);
  EXPECT_EQ(said["cases"][1]["tokens"], 8);
  EXPECT_EQ(said["cases"][1]["fixed"]["dispatch"]["median_us"], 7);
  EXPECT_TRUE(to_table(report).starts_with("8 tokens a rank\n")) << to_table(report);
  EXPECT_THAT(headline(report), HasSubstr("0, 8 tokens a rank"));
}

TEST(Report, WithoutPhasesHasNone) {
  Report report = report_of_gpu();
  report.cases[0].phases.clear();
  EXPECT_EQ(to_json(report)["gpu"]["dispatch_phases_median_us"].dump(), "{}");
  EXPECT_EQ(to_table(report).find("on the GPU"), std::string::npos);
}

// By power of two.
std::vector<double> by_size(std::map<std::size_t, double> const& sums) {
  std::vector<double> all(num_write_sizes, 0);
  for (auto const& [size, sum] : sums) all.at(size) = sum;
  return all;
}

TEST(Report, OverNodesSaysHowMuchCrossedBetweenThem) {
  BenchOptions options;
  options.problem = {.ranks = 3, .tokens = 8, .hidden = 128, .experts = 6, .node_by_rank = {0, 0, 1}};
  Case const of(
      options, [](Problem const& problem) { return make_routing(problem, RoutingKind::uniform); }, 8);
  std::vector<Samples> samples(3);
  samples[0].of(Clock::none, Part::wire_dispatch) = {3'000'000, 6'000'000};
  samples[2].of(Clock::none, Part::wire_combine) = {1'500'000};
  samples[0].of(Clock::none, Part::wire_writes) = {20, 40};
  samples[0].of(Clock::none, Part::wire_sizes) = by_size({{0, 30}, {17, 24}, {18, 6}});
  samples[0].of(Clock::none, Part::wire_volumes) = by_size({{17, 6'000'000}, {18, 6'000'000}});
  samples[0].of(Clock::none, Part::descriptors) = {30};
  samples[1].of(Clock::none, Part::descriptors) = {40};
  samples[1].of(Clock::none, Part::connections) = {6};
  Report report{.options = options};
  report.cases.push_back(make_case_report(of, samples));
  auto const said = to_json(report);
  EXPECT_EQ(said["nodes"], 2);
  EXPECT_EQ(said["wire_bytes_per_rank"]["dispatch"], 1'500'000);
  EXPECT_EQ(said["wire_bytes_per_rank"]["combine"], 500'000);
  EXPECT_EQ(said["wire_writes_per_rank"], 10);
  EXPECT_EQ(said["wire_share_in_large_writes"], 0.5);
  EXPECT_EQ(said["wire_writes_by_size"].dump(), R"([{"from_bytes":0,"writes":5.0,"bytes":0.0},)"
                                                R"({"from_bytes":131072,"writes":4.0,"bytes":1000000.0},)"
                                                R"({"from_bytes":262144,"writes":1.0,"bytes":1000000.0}])");
  EXPECT_EQ(said["descriptors_of_a_rank"].dump(), R"({"open":40.0,"connections":6.0})");
  EXPECT_THAT(to_table(report),
              HasSubstr("descriptors: 40 open at most a rank, 6 of them connections to other nodes\n"));
  EXPECT_THAT(headline(report), HasSubstr("3 ranks on 2 nodes x 1 worker, "));
  EXPECT_THAT(to_table(report),
              HasSubstr("between nodes: 1.5 MB sent a rank in a dispatch, 500.0 kB in a combine, in 10 writes; "
                        "50.0 % of it in writes of 256 KiB and more\n"
                        "writes by size (and of the bytes), from 0 B: 5.0 (0.0 %), 128 KiB: 4.0 (50.0 %), "
                        "256 KiB: 1.0 (50.0 %)\n"));
}

TEST(Report, OfTheLowLatencyModeSaysWhatCrossed) {
  BenchOptions options;
  options.mode = Mode::latency;
  options.problem = {.ranks = 2, .tokens = 8, .hidden = 128, .experts = 6, .node_by_rank = {0, 1}};
  Case const of(
      options, [](Problem const& problem) { return make_routing(problem, RoutingKind::uniform); }, 8);
  std::vector<Samples> samples(2);
  samples[0].of(Clock::none, Part::wire_dispatch) = {3000, 1000};
  samples[1].of(Clock::none, Part::wire_combine) = {5'000'000};
  samples[0].of(Clock::none, Part::wire_writes) = {7, 9};
  samples[0].of(Clock::none, Part::wire_sizes) = by_size({{9, 16}});
  samples[0].of(Clock::none, Part::wire_volumes) = by_size({{9, 10'004'000}});
  Report report{.options = options};
  report.cases.push_back(make_case_report(of, samples));
  auto const said = to_json(report)["cases"][0];
  EXPECT_EQ(said["wire_bytes_per_rank"]["dispatch"], 1000);
  EXPECT_EQ(said["wire_bytes_per_rank"]["combine"], 2'500'000);
  EXPECT_EQ(said["wire_writes_per_rank"], 4);
  EXPECT_EQ(said["wire_share_in_large_writes"], 0);
  EXPECT_THAT(
      to_table(report),
      HasSubstr("      8  between nodes: 1.0 kB sent a rank in a dispatch, 2.5 MB in a combine, in 4 writes\n"
                "      8  writes by size (and of the bytes), from 512 B: 4.0 (100.0 %)\n"));
}

// By hand: ranks 0 and 1 of two tokens, whose experts are those of rank 0 and of both.
TEST(Report, SaysWhatWentBetweenRanksAndWhoWaited) {
  BenchOptions options;
  options.problem = {.ranks = 2, .tokens = 2, .hidden = 64, .top_k = 2, .experts = 4, .payload = Payload::bf16};
  auto const route = [](Problem const& problem) {
    RoutingTable table(problem.ranks, problem.tokens, problem.top_k);
    for (int rank = 0; rank < 2; ++rank) {
      std::ranges::copy(std::array{0, 1}, table.token(rank, 0).begin());
      std::ranges::copy(std::array{3, rank == 0 ? -1 : 0}, table.token(rank, 1).begin());
    }
    return table;
  };
  Case const of(options, route, 2);
  Report report{.options = options};
  report.cases.push_back(make_case_report(of, std::vector<Samples>(2)));
  EXPECT_FALSE(to_json(report).contains("between_ranks"));  // nobody has observed anything
  report.cases[0].traffic = pair_traffic(of);
  report.cases[0].observed = {.calls = 3,
                              .dispatch_wait_us = {{0, 5}, {7, 0}},
                              .combine_wait_us = {{}, {}},
                              .phases = {{"dispatch/place", 12, {.p50 = 1, .p95 = 2, .p99 = 3, .max = 4}}}};
  auto const said = to_json(report);
  EXPECT_EQ(said["between_ranks"].dump(), R"({"calls":3,"node_by_rank":[],)"
                                          R"("dispatch":{"bytes":[[128.0,128.0],[256.0,128.0]],)"
                                          R"("wait_us":[[0.0,5.0],[7.0,0.0]]},)"
                                          R"("combine":{"bytes":[[128.0,256.0],[128.0,128.0]]}})");
  EXPECT_EQ(said["expert_tokens"].dump(), "[[1.0,1.0,0.0,1.0],[2.0,1.0,0.0,1.0]]");
  EXPECT_EQ(said["phases_us"].dump(), R"({"dispatch/place":{"spans":12,"p50":1.0,"p95":2.0,"p99":3.0,"max":4.0}})");
}

TEST(Report, GathersWhatRanksObserved) {
  auto const store = Communicator::in_process_store();
  std::array<Observed, 2> seen;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 2; ++rank) {
    ranks.emplace_back([&, rank] {
      Communicator communicator = Communicator::join(store, rank, 2);
      Observation mine{.calls = 2, .dispatch_wait_us = {0, 4.0 + rank}, .combine_wait_us = {}};
      note_phases({{"place", 0, 1000, 3000}, {"place", 1, 1000, 5000}}, mine);
      if (rank == 1) note_phases({{"arrive", 0, 1000, 2000}}, mine);
      seen[static_cast<std::size_t>(rank)] = gather_observations(communicator, mine);
    });
  }
  for (auto& rank : ranks) rank.join();
  for (Observed const& all : seen) {
    EXPECT_EQ(all.calls, 2);
    EXPECT_EQ(all.dispatch_wait_us, (std::vector<std::vector<double>>{{0, 2}, {0, 2.5}}));
    EXPECT_EQ(all.combine_wait_us, (std::vector<std::vector<double>>{{}, {}}));
    ASSERT_EQ(all.phases.size(), 2U);
    EXPECT_EQ(all.phases[0].name, "arrive");
    EXPECT_EQ(all.phases[1].spans, 4U);
    EXPECT_EQ(all.phases[1].us.p50, 3);
    EXPECT_EQ(all.phases[1].us.max, 4);
  }
}

TEST(Report, OfTheCpuEngineSaysWhatAllRanksTookOfProcessors) {
  BenchOptions options;
  options.problem = {.ranks = 2, .tokens = 8, .hidden = 128, .experts = 6};
  Case const of(
      options, [](Problem const& problem) { return make_routing(problem, RoutingKind::uniform); }, 8);
  std::vector<Samples> samples(2);
  samples[0].of(Clock::cpu, Part::dispatch) = {1000, 5000, 2000};
  samples[1].of(Clock::cpu, Part::dispatch) = {2000, 9000, 2500};
  samples[0].of(Clock::cpu, Part::combine) = {500, 500, 500};
  samples[1].of(Clock::cpu, Part::combine) = {500, 700, 0};
  Report report{.options = options};
  report.cases.push_back(make_case_report(of, samples));
  EXPECT_EQ(to_json(report)["cpu_us_all_ranks"]["dispatch"], 4500);
  EXPECT_EQ(to_json(report)["cpu_us_all_ranks"]["combine"], 1000);
  EXPECT_THAT(to_table(report),
              HasSubstr("processor time: 4.5 ms a dispatch, 1.0 ms a combine, all ranks together\n"));
}

TEST(Report, OnOneNodeSaysNothingOfOthers) {
  auto const report = report_of_gpu();
  EXPECT_EQ(to_json(report)["nodes"], 1);
  EXPECT_FALSE(to_json(report).contains("wire_bytes_per_rank"));
  EXPECT_EQ(headline(report).find("node"), std::string::npos);
  EXPECT_EQ(to_table(report).find("between nodes"), std::string::npos);
  EXPECT_EQ(to_table(report).find("processor time"), std::string::npos);
}

TEST(Gather, CountsWhoBringsTheSame) {
  auto const store = Communicator::in_process_store();
  std::array<int, 3> counts{};
  auto const count_as = [&](int rank) {
    Communicator communicator = Communicator::join(store, rank, 3);
    counts.at(static_cast<std::size_t>(rank)) = count_same(communicator, rank == 1 ? "another" : "a machine");
  };
  std::thread second([&] { count_as(1); });
  std::thread third([&] { count_as(2); });
  count_as(0);
  second.join();
  third.join();
  EXPECT_EQ(counts, (std::array{2, 1, 2}));
}

// Ranks may differ in what they measured.
TEST(Gather, BringsTheSamplesOfAllRanks) {
  auto const store = Communicator::in_process_store();
  std::array<std::vector<Samples>, 2> got;
  auto const gather_as = [&](int rank) {
    Communicator communicator = Communicator::join(store, rank, 2);
    Samples mine;
    mine.of(Clock::host, Part::dispatch) = {rank + 1.0, rank + 2.0};
    if (rank == 1) mine.of(Clock::phases, Part::layout) = {7, 8, 9};
    got.at(static_cast<std::size_t>(rank)) = gather_samples(communicator, mine);
  };
  std::thread other([&] { gather_as(1); });
  gather_as(0);
  other.join();
  for (auto const& all : got) {
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[0].of(Clock::host, Part::dispatch), (std::vector<double>{1, 2}));
    EXPECT_EQ(all[1].of(Clock::host, Part::dispatch), (std::vector<double>{2, 3}));
    EXPECT_TRUE(all[0].of(Clock::phases, Part::layout).empty());
    EXPECT_EQ(all[1].of(Clock::phases, Part::layout), (std::vector<double>{7, 8, 9}));
    EXPECT_TRUE(all[1].of(Clock::host, Part::combine).empty());
  }
}

}  // namespace
}  // namespace switchyard::cli
