// The options of `switchyard bench` and `switchyard trace`.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "cli/bench/low_latency_options.hpp"
#include "oracle/problem.hpp"
#include "oracle/routing.hpp"

namespace CLI {
class App;
}

namespace switchyard::cli {

using oracle::Payload;
using oracle::Problem;
using oracle::RoutingKind;
using oracle::RoutingTable;

enum class Mode : std::uint8_t { throughput, latency };
constexpr std::string_view name_of(Mode mode) noexcept {
  return mode == Mode::latency ? "latency" : "throughput";
}

enum class Launch : std::uint8_t {
  detect,       // from the environment when a launcher's variables are set, fork otherwise
  fork,         // local ranks, as children
  environment,  // this process is one rank of torchrun, mpirun or srun
};
constexpr std::string_view name_of(Launch launch) noexcept {
  switch (launch) {
    case Launch::detect: return "auto";
    case Launch::fork: return "fork";
    case Launch::environment: return "environment";
  }
  return "?";
}

constexpr std::string_view name_of(OutputLayout layout) noexcept {
  return layout == OutputLayout::expanded ? "expanded" : "flat";
}

constexpr std::string_view name_of(EngineKind engine) noexcept {
  switch (engine) {
    case EngineKind::automatic: return "auto";
    case EngineKind::cpu: return "cpu";
    case EngineKind::cuda: return "cuda";
  }
  return "?";
}

// Where the expert outputs lie that combine reads.
enum class OutputsIn : std::uint8_t { heap, any };
constexpr std::string_view name_of(OutputsIn where) noexcept {
  return where == OutputsIn::heap ? "heap" : "any";
}

struct BenchOptions {
  Problem problem{};
  bool ranks_given = false;  // rather than the default
  Mode mode = Mode::throughput;
  RoutingKind routing = RoutingKind::uniform;
  std::string routing_file;
  Launch launch = Launch::detect;
  EngineKind engine = EngineKind::automatic;
  OutputsIn outputs = OutputsIn::heap;
  int workers = 0;
  int sms = 0;
  int iterations = 20;
  int warmup = 3;
  LatencyOptions latency{};
  // As given, for a mode to refuse what it does not know; empty: not given.
  std::string layout_name{};
  std::vector<std::int64_t> token_counts{};
  bool check = true;
  std::string json;   // a file; "-": standard output
  std::string trace;  // a file
  std::int64_t timeout_ms = 0;

  [[nodiscard]] std::chrono::milliseconds timeout() const { return std::chrono::milliseconds{timeout_ms}; }
};

void add_bench_options(CLI::App& app, BenchOptions& options);

// What parsing cannot see: options that contradict one another. Throws InvalidArgument or Unsupported.
void validate(BenchOptions const& options);

}  // namespace switchyard::cli
