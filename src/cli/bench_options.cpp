#include "cli/bench_options.hpp"

#include <CLI/CLI.hpp>
#include <array>
#include <vector>

#include "base/check.hpp"

namespace switchyard::cli {

namespace {

// An option that takes the names of an enumeration's values.
template <typename Enum, std::size_t N>
void add_choice(CLI::App& app, char const* flag, std::array<Enum, N> const& values, Enum& target, char const* doc) {
  std::vector<std::string> names;
  for (Enum const value : values) names.emplace_back(name_of(value));
  auto const assign = [values, &target](std::string const& name) {
    for (Enum const value : values) {
      if (name == name_of(value)) target = value;
    }
  };
  app.add_option_function<std::string>(flag, assign, doc)
      ->check(CLI::IsMember(names))
      ->default_str(std::string(name_of(target)));
}

void add_problem(CLI::App& app, Problem& problem) {
  app.add_option("--ranks", problem.ranks, "ranks, each a process of this machine")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--tokens", problem.tokens, "tokens of each rank")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 24))
      ->capture_default_str();
  app.add_option("--hidden", problem.hidden, "elements of a token")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--top-k", problem.top_k, "experts of a token")->check(CLI::Range(1, 64))->capture_default_str();
  app.add_option("--experts", problem.experts, "experts of all ranks together")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--seed", problem.seed, "seed of routing and data")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_choice(app, "--dtype", std::array{Payload::fp8, Payload::fp8_cast, Payload::bf16, Payload::f16, Payload::f32},
             problem.payload, "what dispatch sends (fp8-cast: bf16, cast on the way); combine is bf16");
  add_choice(app, "--layout", std::array{OutputLayout::flat, OutputLayout::expanded}, problem.layout,
             "rows by source rank (flat) or by expert (expanded)");
}

}  // namespace

void add_bench_options(CLI::App& app, BenchOptions& options) {
  add_problem(app, options.problem);
  add_choice(app, "--mode", std::array{Mode::throughput, Mode::latency}, options.mode, "kind of kernels");
  add_choice(app, "--routing",
             std::array{RoutingKind::uniform, RoutingKind::group_limited, RoutingKind::zipf,
                        RoutingKind::all_to_one, RoutingKind::replay},
             options.routing, "which experts tokens go to");
  app.add_option("--routing-file", options.routing_file,
                 ".npy file, int32 or int64 [tokens, top-k], for --routing replay");
  add_choice(app, "--launch", std::array{Launch::detect, Launch::fork, Launch::environment}, options.launch,
             "fork local ranks, or be one rank of torchrun, mpirun or srun");
  add_choice(app, "--engine", std::array{EngineKind::automatic, EngineKind::cpu, EngineKind::cuda}, options.engine,
             "what moves the rows; auto: cuda when there is a GPU that this build can use");
  add_choice(app, "--outputs", std::array{OutputsIn::heap, OutputsIn::any}, options.outputs,
             "expert outputs: tensors of the symmetric heap, or other memory, which combine stages");
  app.add_option("--sms", options.sms, "SMs of each rank (cuda); 0: the fewest that reach 95 % of the best")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--workers", options.workers, "threads of each rank that move data; 0: cores / ranks")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--iterations", options.iterations, "timed iterations")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--warmup", options.warmup, "iterations before the timed ones")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_flag("--check,!--no-check", options.check, "check every byte and value, before and after the timed loop")
      ->capture_default_str();
  app.add_option("--json", options.json, "write the results as JSON to this file ('-': standard output)");
  app.add_option("--trace", options.trace, "write a Chrome / Perfetto trace of one more iteration to this file")
      ->capture_default_str();
  app.add_option("--timeout-ms", options.timeout_ms, "deadline of every wait; 0: SWITCHYARD_TIMEOUT_MS")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{86400000}))
      ->capture_default_str();
}

void validate(BenchOptions const& options) {
  if (options.mode == Mode::latency) throw Unsupported("--mode latency: low-latency mode is not yet offered");
  bool const replays = options.routing == RoutingKind::replay;
  require(!replays || !options.routing_file.empty(),
          "--routing replay: expected --routing-file FILE.npy, seen none");
  require(replays || options.routing_file.empty(), "--routing-file: expected --routing replay, seen --routing {}",
          name_of(options.routing));
}

}  // namespace switchyard::cli
