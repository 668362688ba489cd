// The options of `switchyard bench` and `switchyard trace`.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "oracle/problem.hpp"
#include "oracle/routing.hpp"
#include "switchyard/low_latency.hpp"

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

constexpr std::string_view name_of(SlotLayout layout) noexcept {
  return layout == SlotLayout::rank_major ? "rank" : "expert";
}

constexpr std::string_view name_of(CombineCoding coding) noexcept {
  return coding == CombineCoding::logfmt10 ? "logfmt10" : "none";
}

// By the scales that it makes.
constexpr std::string_view name_of(SendCast cast) noexcept {
  switch (cast) {
    case SendCast::none: return "none";
    case SendCast::fp8: return "f32";
    case SendCast::fp8_pow2: return "pow2";
    case SendCast::fp8_ue8m0: return "ue8m0";
  }
  return "?";
}

// Where the expert outputs lie that combine reads.
enum class OutputsIn : std::uint8_t { heap, any };
constexpr std::string_view name_of(OutputsIn where) noexcept {
  return where == OutputsIn::heap ? "heap" : "any";
}

// Those that only the latency mode has, or whose defaults are different there.
struct LatencyOptions {
  std::vector<std::int64_t> tokens{1, 8, 32, 64, 128, 256};  // one case each
  std::int64_t max_tokens = 0;                               // that buffers are made for; 0: the case's
  SlotLayout layout = SlotLayout::expert_major;
  SendCast cast = SendCast::fp8;  // of --dtype fp8-cast
  CombineCoding coding = CombineCoding::none;
  bool zero_copy = true;  // where the coding allows it; see in_place()
  bool graphs = true;     // CUDA engine
  int input_sets = 4;
  int iterations = 200;
  int warmup = 20;

  // Combine reads expert outputs where they were written. Codes take that place, so values lie elsewhere.
  [[nodiscard]] constexpr bool in_place() const noexcept { return zero_copy && coding == CombineCoding::none; }
};

struct BenchOptions {
  Problem problem{};
  bool ranks_given = false;  // rather than the default
  int nodes = 0;             // as given; 0: they are not
  int on_machine = 1;        // ranks of this machine, which share its cores and memory; found at the start
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
  std::string json;       // a file; "-": standard output
  std::string trace;      // a file
  std::string calibrate;  // a file; empty: an ordinary benchmark
  std::int64_t timeout_ms = 0;

  [[nodiscard]] std::chrono::milliseconds timeout() const { return std::chrono::milliseconds{timeout_ms}; }
};

void add_bench_options(CLI::App& app, BenchOptions& options);

// What parsing cannot see: options that contradict one another. Throws InvalidArgument or Unsupported.
void validate(BenchOptions const& options);
// The same for ranks that this process forks.
void validate_forked(BenchOptions const& options);

}  // namespace switchyard::cli
