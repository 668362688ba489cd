#include "cli/bench/report.hpp"

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>

#include "cli/bench/copy_ceiling.hpp"

namespace switchyard::cli {

namespace {

double bytes_of(CallBytes const& bytes, Part part, std::int64_t copied) {
  switch (part) {
    case Part::dispatch: return bytes.dispatch;
    case Part::combine: return bytes.combine;
    case Part::both: return bytes.dispatch + bytes.combine;
    case Part::copy:
    case Part::stream_copy: return static_cast<double>(copied);
    default: return 0;
  }
}

std::vector<PartTime> times_of(Case const& of, std::vector<Samples> const& samples) {
  std::vector<PartTime> times;
  CallBytes const sent = of.sent();
  for (Clock const clock : {Clock::host, Clock::device, Clock::graph}) {
    std::int64_t const copied =
        clock == Clock::host ? copy_bytes_total(of.options().on_machine) : 2 * gpu_copy_bytes;
    for (std::size_t at = 0; at < part_names.size(); ++at) {
      auto const part = static_cast<Part>(at);
      std::vector<std::vector<double>> rows;
      for (Samples const& rank : samples) rows.push_back(rank.of(clock, part));
      auto const slowest = max_over_ranks(rows);
      if (slowest.empty()) continue;
      PartTime time{.clock = clock, .part = part, .us = summarise(slowest)};
      if (time.us.p50 > 0) time.gbps = bytes_of(sent, part, copied) / time.us.p50 / 1e3;
      times.push_back(time);
    }
  }
  return times;
}

// Samples hold the phases in turn.
std::vector<PhaseMedian> phases_of(std::vector<Samples> const& samples) {
  std::vector<PhaseMedian> phases;
  for (Part const part : {Part::dispatch, Part::combine, Part::layout}) {
    auto const names = phase_names(part);
    for (std::size_t which = 0; which < names.size(); ++which) {
      std::vector<double> us;
      for (Samples const& rank : samples) {
        auto const& list = rank.of(Clock::phases, part);
        for (std::size_t at = which; at < list.size(); at += names.size()) us.push_back(list[at]);
      }
      if (!us.empty()) phases.push_back({.part = part, .name = names[which], .us = percentile(us, 50)});
    }
  }
  return phases;
}

// Over ranks, of what each has counted.
double mean_of(std::vector<Samples> const& samples, Part part) {
  double sum = 0;
  for (Samples const& rank : samples) {
    auto const& list = rank.of(Clock::none, part);
    if (!list.empty()) sum += std::accumulate(list.begin(), list.end(), 0.0) / static_cast<double>(list.size());
  }
  return sum / static_cast<double>(samples.size());
}

// Over ranks and iterations, of sums by size.
std::array<double, num_write_sizes> mean_by_size(std::vector<Samples> const& samples, Part part) {
  std::array<double, num_write_sizes> means{};
  for (Samples const& rank : samples) {
    auto const& sums = rank.of(Clock::none, part);
    auto const iterations = static_cast<double>(rank.of(Clock::none, Part::wire_writes).size());
    for (std::size_t size = 0; size < std::min(sums.size(), means.size()); ++size)
      means[size] += sums[size] / iterations / static_cast<double>(samples.size());
  }
  return means;
}

WireUse wire_of(std::vector<Samples> const& samples) {
  return {
      .bytes = {.dispatch = mean_of(samples, Part::wire_dispatch), .combine = mean_of(samples, Part::wire_combine)},
      .writes = mean_of(samples, Part::wire_writes),
      .writes_by_size = mean_by_size(samples, Part::wire_sizes),
      .bytes_by_size = mean_by_size(samples, Part::wire_volumes)};
}

double most_of(std::vector<Samples> const& samples, Part part) {
  double most = 0;
  for (Samples const& rank : samples)
    for (double const count : rank.of(Clock::none, part)) most = std::max(most, count);
  return most;
}

double cpu_us(std::vector<Samples> const& samples, Part part) {
  std::vector<double> sums = samples.front().of(Clock::cpu, part);
  for (Samples const& rank : std::span(samples).subspan(1)) {
    auto const& list = rank.of(Clock::cpu, part);
    std::ranges::transform(sums, list, sums.begin(), std::plus{});
  }
  return percentile(sums, 50);
}

MemoryUse memory_of(Case const& of, std::vector<Samples> const& samples) {
  Problem const problem = of.problem();
  MemoryUse use;
  for (Traffic const& rank : of.traffic()) {
    Footprint const part = footprint_of(problem, rank);
    use.payload.inputs += part.inputs / problem.ranks;
    use.payload.received += part.received / problem.ranks;
    use.payload.expert_outputs += part.expert_outputs / problem.ranks;
    use.payload.combined += part.combined / problem.ranks;
  }
  use.pss_bytes = mean_of(samples, Part::pss);
  use.resident_peak_bytes = mean_of(samples, Part::resident_peak);
  use.heap_peak_bytes = mean_of(samples, Part::heap_peak);
  return use;
}

}  // namespace

CaseReport make_case_report(Case const& of, std::vector<Samples> const& samples) {
  return {.problem = of.problem(),
          .max_tokens = of.max_tokens(),
          .sent = of.sent(),
          .times = times_of(of, samples),
          .moved = of.moved(),
          .cpu = {.dispatch_us = cpu_us(samples, Part::dispatch), .combine_us = cpu_us(samples, Part::combine)},
          .phases = phases_of(samples),
          .memory = memory_of(of, samples),
          .wire = wire_of(samples),
          .descriptors = {.open = most_of(samples, Part::descriptors),
                          .connections = most_of(samples, Part::connections)},
          .row_bytes = of.of_a_row()};
}

double WireUse::large() const {
  constexpr std::size_t first_large_size = 18;  // 2^18 bytes, 256 KiB
  auto const sizes = std::span(bytes_by_size).subspan(first_large_size);
  return share(std::accumulate(sizes.begin(), sizes.end(), 0.0));
}

PartTime CaseReport::time(Part part) const {
  auto const found = std::ranges::find(times, part, &PartTime::part);
  return found == times.end() ? PartTime{.part = part} : *found;
}

double CopyRate::fraction(double moved_bytes, PartTime const& time) const {
  return time.us.p50 > 0 && gbps > 0 ? moved_bytes / time.us.p50 / 1e3 / gbps : 0;
}

CopyRate copy_ceiling(CaseReport const& of) {
  PartTime const copy = of.time(Part::copy);
  PartTime const stream = of.time(Part::stream_copy);
  if (copy.clock == Clock::device) return {copy.gbps, "cudaMemcpy inside the GPU"};
  return copy.gbps > stream.gbps ? CopyRate{copy.gbps, "memcpy"} : CopyRate{stream.gbps, "non-temporal"};
}

}  // namespace switchyard::cli
