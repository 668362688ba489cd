// The results of a benchmark, as a table and as JSON.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/bench/case.hpp"
#include "cli/bench/observation.hpp"
#include "cli/bench/pair_traffic.hpp"
#include "cli/bench/samples.hpp"
#include "cli/bench/statistics.hpp"
#include "cli/machine.hpp"

namespace switchyard::cli {

// A part by a clock: over iterations, of the slowest rank of each.
struct PartTime {
  Clock clock = Clock::host;
  Part part = Part::nothing;
  Summary us{};
  double gbps = 0;  // sent, a rank; of a copy, read and written; 0: nothing is
};

// A phase of a part, by the GPU's clock.
struct PhaseMedian {
  Part part = Part::nothing;
  char const* name = "";
  double us = 0;  // over iterations and ranks
};

// Mean over ranks.
struct MemoryUse {
  Footprint payload{};
  double pss_bytes = 0;
  double resident_peak_bytes = 0;
  double heap_peak_bytes = 0;
  // 0 when nothing must exist.
  [[nodiscard]] double ratio() const {
    return payload.total() > 0 ? pss_bytes / static_cast<double>(payload.total()) : 0;
  }
};

// CPU engine: of all ranks together, which may wait in turns; the median over iterations.
struct CpuUse {
  double dispatch_us = 0;
  double combine_us = 0;
};

// To other nodes, all that was written: means over ranks; zeros where nothing was counted.
struct WireUse {
  CallBytes bytes{};
  double writes = 0;  // of a dispatch and a combine
  // The same, and their bytes, by WireCount's sizes.
  std::array<double, num_write_sizes> writes_by_size{};
  std::array<double, num_write_sizes> bytes_by_size{};

  // The share of `bytes`, of 1.
  [[nodiscard]] double share(double of_bytes) const {
    double const all = bytes.dispatch + bytes.combine;
    return all > 0 ? of_bytes / all : 0;
  }
  // Which share goes in writes of 256 KiB and more.
  [[nodiscard]] double large() const;
};
// The smallest writes that WireCount counts there.
constexpr std::uint64_t least_bytes_of_size(std::size_t size) noexcept {
  return size > 0 ? std::uint64_t{1} << size : 0;
}

// Of the rank that has the most.
struct DescriptorUse {
  double open = 0;
  double connections = 0;  // to ranks of other nodes
};

struct CaseReport {
  Problem problem{};
  std::int64_t max_tokens = 0;
  CallBytes sent{};
  std::vector<PartTime> times{};  // what was measured
  // Of the throughput mode.
  CallBytes moved{};
  CpuUse cpu{};
  std::vector<PhaseMedian> phases{};  // CUDA engine
  MemoryUse memory{};
  WireUse wire{};
  DescriptorUse descriptors{};
  // For `switchyard report`.
  Observed observed{};
  PairTraffic traffic{};
  CallBytes row_bytes{};

  // All zeros for what was not measured; by the clock of the throughput mode's engine.
  [[nodiscard]] PartTime time(Part part) const;
};
// By rank: what each measured.
CaseReport make_case_report(Case const& of, std::vector<Samples> const& samples);

struct CopyRate {
  double gbps = 0;
  char const* kind = "";
  // What a part moves, compared with it.
  [[nodiscard]] double fraction(double moved_bytes, PartTime const& time) const;
};
CopyRate copy_ceiling(CaseReport const& of);

struct Report {
  BenchOptions options{};
  EngineKind engine = EngineKind::cpu;
  int workers = 1;
  Machine machine{};
  std::vector<CaseReport> cases{};  // that ran so far
};

// What is run, in a line; in the low-latency mode also the head of the table.
std::string headline(Report const& report);
// The latest case.
std::string to_table(Report const& report);
nlohmann::ordered_json to_json(Report const& report);

}  // namespace switchyard::cli
