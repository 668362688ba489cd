#include <fmt/ranges.h>

#include "cli/bench/report.hpp"

namespace switchyard::cli {

namespace {

std::string workers_text(int workers) {
  return fmt::format("{} worker{}", workers, workers == 1 ? "" : "s");
}

std::string ranks_text(Problem const& problem) {
  std::string const nodes = problem.nodes() == 1 ? "" : fmt::format(" on {} nodes", problem.nodes());
  return fmt::format("{} ranks{}", problem.ranks, nodes);
}

std::string bytes_text(double bytes) {
  return bytes < 1e6 ? fmt::format("{:.1f} kB", bytes / 1e3) : fmt::format("{:.1f} MB", bytes / 1e6);
}

// What crosses between nodes, with all that goes along; without an end of the line.
std::string wire_text(WireUse const& wire) {
  return fmt::format("between nodes: {} sent a rank in a dispatch, {} in a combine, in {:.0f} writes",
                     bytes_text(wire.bytes.dispatch), bytes_text(wire.bytes.combine), wire.writes);
}

// A power of two, or 0.
std::string size_text(std::uint64_t bytes) {
  if (bytes >= std::uint64_t{1} << 20) return fmt::format("{} MiB", bytes >> 20);
  return bytes >= 1024 ? fmt::format("{} KiB", bytes >> 10) : fmt::format("{} B", bytes);
}

// How many writes are of which size, and their share of the bytes; without an end of the line.
std::string sizes_text(WireUse const& wire) {
  std::string text;
  for (std::size_t size = 0; size < num_write_sizes; ++size) {
    if (wire.writes_by_size[size] <= 0) continue;
    text += fmt::format("{} {}: {:.1f} ({:.1f} %)", text.empty() ? "" : ",", size_text(least_bytes_of_size(size)),
                        wire.writes_by_size[size], wire.share(wire.bytes_by_size[size]) * 100);
  }
  return fmt::format("writes by size (and of the bytes), from{}", text);
}

// Of a job of several nodes, where they grow with the number of these.
std::string descriptors_text(CaseReport const& of) {
  if (of.wire.writes <= 0) return "";
  return fmt::format("descriptors: {:.0f} open at most a rank, {:.0f} of them connections to other nodes\n",
                     of.descriptors.open, of.descriptors.connections);
}

std::string cpu_text(CpuUse const& cpu) {
  if (cpu.dispatch_us <= 0) return "";
  return fmt::format("processor time: {:.1f} ms a dispatch, {:.1f} ms a combine, all ranks together\n",
                     cpu.dispatch_us / 1e3, cpu.combine_us / 1e3);
}

std::string throughput_row(PartTime const& time, std::string_view dtype, double bytes, double fraction) {
  return fmt::format("{:<10}{:<10}{:>12.0f}{:>12.0f}{:>12.0f}{:>16.1f}{:>14.2f}{:>16.0f} %\n", name_of(time.part),
                     dtype, time.us.p50, time.us.p99, time.us.max, bytes / 1e6, time.gbps, fraction * 100);
}

std::string phases_text(CaseReport const& of) {
  std::string text;
  Part part = Part::nothing;
  for (PhaseMedian const& phase : of.phases) {
    if (phase.part != part)
      text += fmt::format("{}{} on the GPU, median us a rank:", text.empty() ? "" : "\n", name_of(phase.part));
    text += fmt::format(" {} {:.1f}", phase.name, phase.us);
    part = phase.part;
  }
  return text.empty() ? "" : text + "\n";
}

// What a call costs before any byte moves.
std::string fixed_text(CaseReport const& of) {
  PartTime const nothing = of.time(Part::nothing);
  std::string const own =
      nothing.us.p50 > 0 ? fmt::format("; in each {:.1f} us of the measurement itself", nothing.us.p50) : "";
  return fmt::format("fixed cost: {:.1f} us a dispatch, {:.1f} us a combine (medians of calls of no tokens{})\n",
                     of.time(Part::empty_dispatch).us.p50, of.time(Part::empty_combine).us.p50, own);
}

std::string throughput_table(Report const& report) {
  CaseReport const& of = report.cases.back();
  constexpr double mib = 1 << 20;
  PartTime const dispatch = of.time(Part::dispatch);
  PartTime const combine = of.time(Part::combine);
  PartTime const layout = of.time(Part::layout);
  CopyRate const copy = copy_ceiling(of);
  std::string text;
  if (report.options.token_counts.size() > 1) text = fmt::format("{} tokens a rank\n", of.problem.tokens);
  text += fmt::format("{:<10}{:<10}{:>12}{:>12}{:>12}{:>16}{:>14}{:>18}\n", "operation", "dtype", "median us",
                      "p99 us", "max us", "MB recv/rank", "GB/s a rank", "of copy ceiling");
  text += throughput_row(dispatch, name_of(of.problem.payload), of.sent.dispatch,
                         copy.fraction(of.moved.dispatch, dispatch));
  text += throughput_row(combine, "bf16", of.sent.combine, copy.fraction(of.moved.combine, combine));
  text += fmt::format("copy ceiling: {:.2f} GB/s a rank, read and written, all ranks at once ({})\n", copy.gbps,
                      copy.kind);
  if (of.wire.writes > 0)
    text += fmt::format("{}; {:.1f} % of it in writes of 256 KiB and more\n{}\n", wire_text(of.wire),
                        of.wire.large() * 100, sizes_text(of.wire));
  text += cpu_text(of.cpu);
  text += phases_text(of);
  text += fixed_text(of);
  if (layout.us.p50 > 0) text += fmt::format("layout alone: {:.1f} us\n", layout.us.p50);
  text += fmt::format("memory: {:.0f} MiB a rank for {:.0f} MiB of payload", of.memory.pss_bytes / mib,
                      static_cast<double>(of.memory.payload.total()) / mib);
  text += of.memory.ratio() > 0 ? fmt::format(" ({:.2f} times)\n", of.memory.ratio()) : "\n";
  return text + descriptors_text(of);
}

std::string latency_head() {
  return fmt::format("{:>7}  {:<8}{:<18}{:>10}{:>10}{:>10}{:>10}{:>10}{:>13}\n", "tokens", "clock", "part",
                     "p50 us", "p95 us", "p99 us", "p99.9 us", "max us", "GB/s a rank");
}

std::string latency_table(CaseReport const& of) {
  std::string text;
  for (PartTime const& time : of.times) {
    text += fmt::format("{:>7}  {:<8}{:<18}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}{:>10.1f}", of.problem.tokens,
                        name_of(time.clock), name_of(time.part), time.us.p50, time.us.p95, time.us.p99,
                        time.us.p999, time.us.max);
    text += time.gbps > 0 ? fmt::format("{:>13.2f}\n", time.gbps) : "\n";
  }
  if (of.wire.writes > 0)
    text += fmt::format("{:>7}  {}\n{:>7}  {}\n", of.problem.tokens, wire_text(of.wire), of.problem.tokens,
                        sizes_text(of.wire));
  return text;
}

}  // namespace

std::string headline(Report const& report) {
  BenchOptions const& options = report.options;
  LatencyOptions const& latency = options.latency;
  Problem const& p = options.problem;
  auto counts = options.token_counts;
  if (counts.empty()) counts = {p.tokens};
  std::string const workers = workers_text(report.workers);
  std::string who = fmt::format(" x {}, {} tokens a rank", workers, fmt::join(counts, ", "));
  std::string cast;
  std::string how;
  std::string_view layout = name_of(p.layout);
  if (options.mode == Mode::latency) {
    who = fmt::format(", engine {}, {}", name_of(report.engine), workers);
    if (p.payload == Payload::fp8_cast) cast = fmt::format(" {}", name_of(latency.cast));
    how = fmt::format("{}, {}", latency.coding == CombineCoding::logfmt10 ? " in LogFMT-10" : "",
                      latency.in_place() ? "zero-copy" : "any pointer");
    layout = name_of(latency.layout);
  }
  return fmt::format(
      "switchyard bench: {}{}, hidden {}, top-{} of {} experts, {} routing, "
      "{}{} dispatch and bf16 combine{}, {} layout, {} mode, seed {}\n{}",
      ranks_text(p), who, p.hidden, p.top_k, p.experts, name_of(options.routing), name_of(p.payload), cast, how,
      layout, name_of(options.mode), p.seed, options.mode == Mode::latency ? latency_head() : "");
}

std::string to_table(Report const& report) {
  return report.options.mode == Mode::latency ? latency_table(report.cases.back()) : throughput_table(report);
}

}  // namespace switchyard::cli
