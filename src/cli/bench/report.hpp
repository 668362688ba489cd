// The results of a benchmark, as a table and as JSON.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/bench/footprint.hpp"
#include "cli/bench/options.hpp"
#include "cli/bench/statistics.hpp"
#include "cli/machine.hpp"

namespace switchyard::cli {

// What one rank measured. All ranks have equally many samples.
struct RankSamples {
  std::vector<double> dispatch_us;
  std::vector<double> combine_us;
  std::vector<double> libc_copy_us;
  std::vector<double> non_temporal_copy_us;
  std::vector<double> device_copy_us;  // CUDA engine, instead of the two above
  std::vector<double> layout_us;       // CUDA engine
  // CUDA engine: by iteration, then by phase; see phase_names().
  std::vector<double> dispatch_phases_us;
  std::vector<double> combine_phases_us;
  std::vector<double> layout_phases_us;
  double pss_bytes = 0;
  double resident_peak_bytes = 0;
  double heap_peak_bytes = 0;
};

struct Operation {
  std::string dtype{};
  Summary us{};            // over iterations, of the slowest rank of each
  double recv_bytes = 0;   // mean over ranks
  double moved_bytes = 0;  // read once and written once, mean over ranks
  double gbps = 0;         // received, a rank
  double fraction = 0;     // of the copy ceiling
};

// A part of a call, by the GPU's clock.
struct Phase {
  std::string name{};
  double us = 0;  // median over iterations and ranks
};

// In the order of the samples.
inline constexpr std::array dispatch_phase_names{"launch", "count", "agree", "answer", "move", "close"};
inline constexpr std::array combine_phase_names{"launch", "stage", "agree", "sum", "close"};
inline constexpr std::array layout_phase_names{"launch", "count"};

struct MemoryUse {
  Footprint payload{};  // mean over ranks
  double pss_bytes = 0;
  double resident_peak_bytes = 0;
  double heap_peak_bytes = 0;
  [[nodiscard]] double ratio() const { return pss_bytes / static_cast<double>(payload.total()); }
};

struct BenchReport {
  BenchOptions options{};
  int workers = 1;
  EngineKind engine = EngineKind::cpu;
  Machine machine{};
  Operation dispatch{};
  Operation combine{};
  Summary layout_us{};                   // CUDA engine: get_layout
  std::vector<Phase> dispatch_phases{};  // CUDA engine
  std::vector<Phase> combine_phases{};
  std::vector<Phase> layout_phases{};
  double copy_gbps = 0;
  std::string copy_kind{};
  MemoryUse memory{};
};

BenchReport make_report(BenchOptions const& options, std::vector<Traffic> const& traffic,
                        std::vector<RankSamples> const& samples);

// One line: what is run.
std::string headline(BenchOptions const& options, int workers);
std::string to_table(BenchReport const& report);
nlohmann::ordered_json to_json(BenchReport const& report);

}  // namespace switchyard::cli
