// The results of a latency benchmark, as a table and as JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/bench/case.hpp"
#include "cli/bench/parts.hpp"

namespace switchyard::cli {

struct LatencySummary {
  double p50 = 0;
  double p95 = 0;
  double p99 = 0;
  double p999 = 0;
  double max = 0;
};

// A part by a clock: over iterations, of the slowest rank of each.
struct LatencyTime {
  Clock clock = Clock::host;
  Part part = Part::nothing;
  LatencySummary us{};
  double gbps = 0;  // sent, a rank; 0: nothing is
};

struct LatencyResult {
  std::int64_t tokens = 0;
  std::int64_t max_tokens = 0;
  LatencyBytes bytes{};
  std::vector<LatencyTime> times{};  // what was measured
};

LatencyResult make_latency_result(LatencyCase const& of, std::vector<LatencySamples> const& by_rank);

// What all cases share.
struct LatencyRun {
  BenchOptions options{};
  EngineKind engine = EngineKind::cpu;
  int workers = 1;
};
// One line: what is run; and the heads of the columns.
std::string latency_headline(LatencyRun const& run);
std::string latency_table_head();
std::string to_table(LatencyResult const& result);
nlohmann::ordered_json to_json(LatencyRun const& run, std::vector<LatencyResult> const& results);

}  // namespace switchyard::cli
