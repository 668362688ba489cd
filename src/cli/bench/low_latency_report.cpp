#include "cli/bench/low_latency_report.hpp"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "cli/bench/output.hpp"
#include "cli/bench/statistics.hpp"

namespace switchyard::cli {

namespace {

using json = nlohmann::ordered_json;

double bytes_of(LatencyBytes const& bytes, Part part) {
  switch (part) {
    case Part::dispatch: return bytes.dispatch;
    case Part::combine: return bytes.combine;
    case Part::both: return bytes.dispatch + bytes.combine;
    default: return 0;
  }
}

LatencySummary summary_of(std::vector<double> const& us) {
  return {.p50 = percentile(us, 50),
          .p95 = percentile(us, 95),
          .p99 = percentile(us, 99),
          .p999 = percentile(us, 99.9),
          .max = percentile(us, 100)};
}

json time_json(LatencyTime const& time) {
  json result = {{"p50_us", time.us.p50},
                 {"p95_us", time.us.p95},
                 {"p99_us", time.us.p99},
                 {"p99_9_us", time.us.p999},
                 {"max_us", time.us.max}};
  if (time.gbps > 0) result["gbps_per_rank"] = time.gbps;
  return result;
}

json case_json(LatencyResult const& result) {
  json all = {{"tokens", result.tokens},
              {"max_tokens", result.max_tokens},
              {"dispatch_bytes_per_rank", result.bytes.dispatch},
              {"combine_bytes_per_rank", result.bytes.combine}};
  for (LatencyTime const& time : result.times)
    all[std::string(name_of(time.clock))][std::string(name_of(time.part))] = time_json(time);
  return all;
}

}  // namespace

LatencyResult make_latency_result(LatencyCase const& of, std::vector<LatencySamples> const& by_rank) {
  LatencyResult result{.tokens = of.problem().tokens, .max_tokens = of.max_tokens(), .bytes = of.bytes()};
  for (Clock const clock : all_clocks) {
    for (Part const part : all_parts) {
      std::vector<std::vector<double>> rows;
      for (LatencySamples const& rank : by_rank) rows.push_back(rank.of(clock, part));
      auto const slowest = max_over_ranks(rows);
      if (slowest.empty()) continue;
      LatencyTime time{.clock = clock, .part = part, .us = summary_of(slowest)};
      if (time.us.p50 > 0) time.gbps = bytes_of(result.bytes, part) / time.us.p50 / 1e3;
      result.times.push_back(time);
    }
  }
  return result;
}

std::string latency_headline(LatencyRun const& run) {
  Problem const& p = run.options.problem;
  LatencyOptions const& latency = run.options.latency;
  bool const casts = p.payload == Payload::fp8_cast;
  return fmt::format(
      "switchyard bench: {} ranks, engine {}, {} worker{}, hidden {}, top-{} of {} experts, {} routing, {}{}{} "
      "dispatch "
      "and bf16 combine{}, {}, {} layout, latency mode, seed {}",
      p.ranks, name_of(run.engine), run.workers, run.workers == 1 ? "" : "s", p.hidden, p.top_k, p.experts,
      name_of(run.options.routing), name_of(p.payload), casts ? " " : "", casts ? name_of(latency.cast) : "",
      latency.coding == CombineCoding::logfmt10 ? " in LogFMT-10" : "",
      latency.in_place() ? "zero-copy" : "any pointer", name_of(latency.layout), p.seed);
}

std::string latency_table_head() {
  return fmt::format("{:>7}  {:<8}{:<18}{:>10}{:>10}{:>10}{:>10}{:>10}{:>13}\n", "tokens", "clock", "part",
                     "p50 us", "p95 us", "p99 us", "p99.9 us", "max us", "GB/s a rank");
}

std::string to_table(LatencyResult const& result) {
  std::string text;
  for (LatencyTime const& time : result.times) {
    text += fmt::format("{:>7}  {:<8}{:<18}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}", result.tokens,
                        name_of(time.clock), name_of(time.part), time.us.p50, time.us.p95, time.us.p99,
                        time.us.p999, time.us.max);
    text += time.gbps > 0 ? fmt::format("{:>13.2f}\n", time.gbps) : "\n";
  }
  return text;
}

json to_json(LatencyRun const& run, std::vector<LatencyResult> const& results) {
  Problem const& problem = run.options.problem;
  LatencyOptions const& latency = run.options.latency;
  json all = {{"schema", "switchyard-latency/1"},
              {"commit", commit_name()},
              {"machine", to_json(describe_machine())},
              {"engine", name_of(run.engine)},
              {"mode", "latency"},
              {"layout", name_of(latency.layout)},
              {"ranks", problem.ranks},
              {"nodes", 1},
              {"hidden", problem.hidden},
              {"top_k", problem.top_k},
              {"experts", problem.experts},
              {"routing", name_of(run.options.routing)},
              {"seed", problem.seed},
              {"dtype", name_of(problem.payload)},
              {"cast", problem.payload == Payload::fp8_cast ? name_of(latency.cast) : "none"},
              {"coding", name_of(latency.coding)},
              {"zero_copy", latency.in_place()},
              {"workers", run.workers},
              {"sms", run.options.sms},
              {"iterations", latency.iterations},
              {"input_sets", latency.input_sets},
              {"checked", run.options.check},
              {"cases", json::array()}};
  for (LatencyResult const& result : results) all["cases"].push_back(case_json(result));
  return all;
}

}  // namespace switchyard::cli
