#include "cli/bench/report.hpp"

#include <fmt/core.h>

#include <span>

#include "cli/bench/copy_ceiling.hpp"

namespace switchyard::cli {

namespace {

// Mean over ranks of `value(rank)`.
template <typename Range, typename Value>
double mean(Range const& ranks, Value&& value) {
  double sum = 0;
  for (auto const& rank : ranks) sum += static_cast<double>(value(rank));
  return sum / static_cast<double>(ranks.size());
}

std::vector<double> slowest(std::vector<RankSamples> const& samples, std::vector<double> RankSamples::*times) {
  std::vector<std::vector<double>> rows;
  for (RankSamples const& rank : samples) rows.push_back(rank.*times);
  return max_over_ranks(rows);
}

void set_ceiling(BenchReport& report, std::vector<RankSamples> const& samples) {
  auto const gbps = [&](std::vector<double> RankSamples::*times) {
    double const median_us = summarise(slowest(samples, times)).median;
    return median_us > 0 ? static_cast<double>(copy_bytes_total) / median_us / 1e3 : 0;
  };
  if (!samples.front().device_copy_us.empty()) {
    report.copy_gbps = gbps(&RankSamples::device_copy_us);
    report.copy_kind = "cudaMemcpy inside the GPU";
    return;
  }
  double const libc = gbps(&RankSamples::libc_copy_us);
  double const non_temporal = gbps(&RankSamples::non_temporal_copy_us);
  report.copy_gbps = std::max(libc, non_temporal);
  report.copy_kind = libc > non_temporal ? "memcpy" : "non-temporal";
}

void set_rates(Operation& operation, double copy_gbps) {
  if (operation.us.median <= 0 || copy_gbps <= 0) return;
  operation.gbps = operation.recv_bytes / operation.us.median / 1e3;
  operation.fraction = operation.moved_bytes / operation.us.median / 1e3 / copy_gbps;
}

Operation dispatch_of(Problem const& problem, std::vector<Traffic> const& traffic) {
  auto const in = problem.input_row_bytes();
  auto const out = problem.received_row_bytes();
  return {.dtype = std::string(name_of(problem.payload)),
          .recv_bytes = mean(traffic, [=](Traffic const& t) { return t.received_rows * out; }),
          .moved_bytes = mean(traffic, [=](Traffic const& t) { return t.routed_tokens * in + t.sent_rows * out; })};
}

Operation combine_of(Problem const& problem, std::vector<Traffic> const& traffic) {
  auto const row = problem.combine_row_bytes();
  return {.dtype = "bf16",
          .recv_bytes = mean(traffic, [=](Traffic const& t) { return t.sent_rows * row; }),
          .moved_bytes = mean(traffic, [=](Traffic const& t) { return (t.sent_rows + t.tokens) * row; })};
}

MemoryUse memory_of(Problem const& problem, std::vector<Traffic> const& traffic,
                    std::vector<RankSamples> const& samples) {
  MemoryUse use;
  for (Traffic const& rank : traffic) {
    Footprint const part = footprint_of(problem, rank);
    use.payload.inputs += part.inputs / problem.ranks;
    use.payload.received += part.received / problem.ranks;
    use.payload.expert_outputs += part.expert_outputs / problem.ranks;
    use.payload.combined += part.combined / problem.ranks;
  }
  use.pss_bytes = mean(samples, [](RankSamples const& s) { return s.pss_bytes; });
  use.resident_peak_bytes = mean(samples, [](RankSamples const& s) { return s.resident_peak_bytes; });
  use.heap_peak_bytes = mean(samples, [](RankSamples const& s) { return s.heap_peak_bytes; });
  return use;
}

std::string table_row(char const* name, Operation const& operation) {
  return fmt::format("{:<10}{:<10}{:>12.0f}{:>12.0f}{:>12.0f}{:>16.1f}{:>14.2f}{:>16.0f} %\n", name,
                     operation.dtype, operation.us.median, operation.us.p99, operation.us.max,
                     operation.recv_bytes / 1e6, operation.gbps, operation.fraction * 100);
}

// The samples hold `names` in turn.
std::vector<Phase> phases_of(std::vector<RankSamples> const& samples, std::vector<double> RankSamples::*times,
                             std::span<char const* const> names) {
  std::vector<Phase> phases;
  for (std::size_t which = 0; which < names.size(); ++which) {
    std::vector<double> values;
    for (RankSamples const& rank : samples) {
      for (std::size_t at = which; at < (rank.*times).size(); at += names.size())
        values.push_back((rank.*times)[at]);
    }
    if (!values.empty()) phases.push_back({names[which], summarise(values).median});
  }
  return phases;
}

std::string phases_text(char const* operation, std::vector<Phase> const& phases) {
  if (phases.empty()) return "";
  std::string text = fmt::format("{} on the GPU, median us a rank:", operation);
  for (Phase const& phase : phases) text += fmt::format(" {} {:.1f}", phase.name, phase.us);
  return text + "\n";
}

}  // namespace

BenchReport make_report(BenchOptions const& options, std::vector<Traffic> const& traffic,
                        std::vector<RankSamples> const& samples) {
  Problem const& problem = options.problem;
  BenchReport report{.options = options,
                     .machine = describe_machine(),
                     .dispatch = dispatch_of(problem, traffic),
                     .combine = combine_of(problem, traffic),
                     .memory = memory_of(problem, traffic, samples)};
  report.dispatch.us = summarise(slowest(samples, &RankSamples::dispatch_us));
  report.combine.us = summarise(slowest(samples, &RankSamples::combine_us));
  report.layout_us = summarise(slowest(samples, &RankSamples::layout_us));
  report.dispatch_phases = phases_of(samples, &RankSamples::dispatch_phases_us, dispatch_phase_names);
  report.combine_phases = phases_of(samples, &RankSamples::combine_phases_us, combine_phase_names);
  report.layout_phases = phases_of(samples, &RankSamples::layout_phases_us, layout_phase_names);
  set_ceiling(report, samples);
  set_rates(report.dispatch, report.copy_gbps);
  set_rates(report.combine, report.copy_gbps);
  return report;
}

std::string headline(BenchOptions const& options, int workers) {
  Problem const& p = options.problem;
  return fmt::format(
      "switchyard bench: {} ranks x {} worker{}, {} tokens a rank, hidden {}, top-{} of {} experts, {} routing, {} "
      "dispatch and bf16 combine, {} layout, {} mode, seed {}",
      p.ranks, workers, workers == 1 ? "" : "s", p.tokens, p.hidden, p.top_k, p.experts, name_of(options.routing),
      name_of(p.payload), name_of(p.layout), name_of(options.mode), p.seed);
}

std::string to_table(BenchReport const& report) {
  constexpr double mib = 1 << 20;
  std::string text = fmt::format("{:<10}{:<10}{:>12}{:>12}{:>12}{:>16}{:>14}{:>18}\n", "operation", "dtype",
                                 "median us", "p99 us", "max us", "MB recv/rank", "GB/s a rank", "of copy ceiling");
  text += table_row("dispatch", report.dispatch);
  text += table_row("combine", report.combine);
  text += fmt::format("copy ceiling: {:.2f} GB/s a rank, read and written, all ranks at once ({})\n",
                      report.copy_gbps, report.copy_kind);
  text += phases_text("dispatch", report.dispatch_phases);
  text += phases_text("combine", report.combine_phases);
  text += phases_text("layout", report.layout_phases);
  if (report.layout_us.median > 0) text += fmt::format("layout alone: {:.1f} us\n", report.layout_us.median);
  text += fmt::format("memory: {:.0f} MiB a rank for {:.0f} MiB of payload ({:.2f} times)\n",
                      report.memory.pss_bytes / mib, static_cast<double>(report.memory.payload.total()) / mib,
                      report.memory.ratio());
  text += report.options.check ? "checked: every received byte and every combined value, before and after\n"
                               : "not checked (--no-check)\n";
  return text;
}

}  // namespace switchyard::cli
