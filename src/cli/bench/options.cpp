#include "cli/bench/options.hpp"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <concepts>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/check.hpp"
#include "base/number.hpp"
#include "layout/routes.hpp"
#include "layout/topology.hpp"

namespace switchyard::cli {

namespace {

// As many as jobs are made for. Those of one node are fewer.
constexpr int most_ranks = 2048;

template <std::integral T>
struct Range {
  T low;
  T high;
};

// Throws CLI::ValidationError, which names the option, what was expected and what was seen. (CLI11's own numbers
// are cut to what fits, and its ranges are those of doubles.)
template <std::integral T>
T take_number(std::string_view flag, Range<T> range, std::string_view text) {
  try {
    return number_between(range.low, range.high, flag, text);
  } catch (InvalidArgument const& error) {
    throw CLI::ValidationError(error.what());
  }
}

template <std::integral T>
CLI::Option* add_number(CLI::App& app, std::string const& flag, Range<T> range, std::function<void(T)> const& take,
                        std::string const& doc) {
  auto const parse = [=](std::string const& text) { take(take_number(flag, range, text)); };
  return app.add_option_function<std::string>(flag, parse, doc)
      ->type_name(fmt::format("INT in [{} - {}]", range.low, range.high));
}

template <std::integral T>
CLI::Option* add_number(CLI::App& app, std::string const& flag, Range<std::type_identity_t<T>> range, T& target,
                        std::string const& doc) {
  std::function<void(T)> const take = [&target](T value) { target = value; };
  return add_number(app, flag, range, take, doc)->default_str(fmt::format("{}", target));
}

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

// Counts of tokens, with commas between them.
void add_tokens(CLI::App& app, BenchOptions& options) {
  auto const take = [&options](std::string const& text) {
    std::vector<std::int64_t> counts;
    for (std::string const& part : CLI::detail::split(text, ','))
      counts.push_back(take_number<std::int64_t>("--tokens", {0, std::int64_t{1} << 24}, part));
    options.problem.tokens = counts.front();
    options.latency.tokens = options.token_counts = counts;
  };
  app.add_option_function<std::string>(
         "--tokens", take, "tokens of each rank, or a list of counts, one case each (latency: 1,8,32,64,128,256)")
      ->default_str(std::to_string(options.problem.tokens));
}

void add_layout(CLI::App& app, BenchOptions& options) {
  auto const take = [&options](std::string const& name) {
    options.layout_name = name;
    options.problem.layout = name == "expanded" ? OutputLayout::expanded : OutputLayout::flat;
    options.latency.layout = name == "rank" ? SlotLayout::rank_major : SlotLayout::expert_major;
  };
  app.add_option_function<std::string>(
         "--layout", take,
         "rows by source rank (flat) or by expert (expanded); latency: slots by expert "
         "(expert) or by source rank (rank)")
      ->check(CLI::IsMember({"flat", "expanded", "expert", "rank"}))
      ->default_str("flat; latency: expert");
}

// A number whose default differs between the modes.
void add_count(CLI::App& app, char const* flag, std::array<int*, 2> const& targets, int least, char const* doc) {
  std::function<void(int)> const take = [targets](int value) {
    for (int* const target : targets) *target = value;
  };
  add_number(app, flag, {least, 1000000}, take, doc)
      ->default_str(std::to_string(*targets[0]) + "; latency: " + std::to_string(*targets[1]));
}

void add_problem(CLI::App& app, BenchOptions& options) {
  Problem& problem = options.problem;
  std::function<void(int)> const take_ranks = [&options](int ranks) {
    options.problem.ranks = ranks;
    options.ranks_given = true;
  };
  add_number(app, "--ranks", {1, most_ranks}, take_ranks, "ranks, each a process of this machine")
      ->default_str(std::to_string(problem.ranks));
  add_number(app, "--nodes", {1, most_ranks}, options.nodes,
             "nodes that the ranks play to be on, divided evenly in their order")
      ->default_str("1");
  add_number(app, "--hidden", {1, std::int64_t{1} << 20}, problem.hidden, "elements of a token");
  add_number(app, "--top-k", {1, max_top_k}, problem.top_k, "experts of a token");
  add_number(app, "--experts", {1, 65536}, problem.experts, "experts of all ranks together");
  add_number(app, "--seed", {0, std::numeric_limits<std::uint64_t>::max()}, problem.seed,
             "seed of routing and data");
  add_choice(app, "--dtype", std::array{Payload::fp8, Payload::fp8_cast, Payload::bf16, Payload::f16, Payload::f32},
             problem.payload, "what dispatch sends (fp8-cast: bf16, cast on the way); combine is bf16");
}

void add_latency_options(CLI::App& app, LatencyOptions& options) {
  add_choice(app, "--cast", std::array{SendCast::fp8, SendCast::fp8_pow2, SendCast::fp8_ue8m0}, options.cast,
             "latency: scales of --dtype fp8-cast");
  add_choice(app, "--coding", std::array{CombineCoding::none, CombineCoding::logfmt10}, options.coding,
             "latency: how outputs travel back");
  app.add_flag(
         "--zero-copy,!--any-pointer", options.zero_copy,
         "latency: expert outputs where combine reads them, or in other memory, which it copies first (always so "
         "with a coding)")
      ->capture_default_str();
  app.add_flag("--graphs,!--no-graphs", options.graphs, "latency: times within CUDA graphs, too (cuda)")
      ->capture_default_str();
  add_number(app, "--max-tokens", {0, std::int64_t{1} << 24}, options.max_tokens,
             "latency: tokens that buffers are made for; 0: as many as sent");
  add_number(app, "--input-sets", {1, 64}, options.input_sets, "latency: inputs that calls take in turn");
}

void validate_latency(BenchOptions const& options) {
  LatencyOptions const& latency = options.latency;
  require(options.layout_name != "flat" && options.layout_name != "expanded",
          "--layout {}: --mode latency has expert and rank", options.layout_name);
  require(latency.cast == SendCast::fp8 || options.problem.payload == Payload::fp8_cast,
          "--cast {}: expected --dtype fp8-cast, seen --dtype {}", name_of(latency.cast),
          name_of(options.problem.payload));
  require(options.trace.empty(), "--trace: --mode latency has none");
  for (std::int64_t const tokens : latency.tokens) {
    require(latency.max_tokens == 0 || tokens <= latency.max_tokens, "--tokens {}: more than --max-tokens {}",
            tokens, latency.max_tokens);
  }
}

void validate_mode(BenchOptions const& options) {
  if (options.mode == Mode::latency) return validate_latency(options);
  require(options.layout_name != "expert" && options.layout_name != "rank",
          "--layout {}: --mode throughput has flat and expanded", options.layout_name);
  require(options.trace.empty() || options.token_counts.size() <= 1,
          "--tokens: with --trace expected one count, seen {}", options.token_counts.size());
}

// What a calibration measures is what a plan can predict.
void validate_calibration(BenchOptions const& options) {
  require(options.mode == Mode::throughput, "--calibrate: expected no --mode, since it times both");
  require(options.layout_name.empty(), "--calibrate: expected no --layout, seen {}; plans are for the default ones",
          options.layout_name);
  require(options.json.empty() && options.trace.empty(), "--calibrate: expected no --json and no --trace");
  require(options.nodes <= 1, "--calibrate: expected one node, seen --nodes {}", options.nodes);
  require(options.problem.payload == Payload::fp8 || options.problem.payload == Payload::bf16,
          "--calibrate: expected --dtype fp8 or bf16, seen {}", name_of(options.problem.payload));
}

}  // namespace

void add_bench_options(CLI::App& app, BenchOptions& options) {
  add_problem(app, options);
  add_tokens(app, options);
  add_layout(app, options);
  add_choice(app, "--mode", std::array{Mode::throughput, Mode::latency}, options.mode,
             "many tokens, or few of them in low-latency mode");
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
  add_number(app, "--sms", {0, 1024}, options.sms,
             "SMs of each rank (cuda); 0: the fewest that reach 95 % of the best");
  add_number(app, "--workers", {0, 1024}, options.workers, "threads of each rank that move data; 0: cores / ranks");
  add_count(app, "--iterations", {&options.iterations, &options.latency.iterations}, 1, "timed iterations");
  add_count(app, "--warmup", {&options.warmup, &options.latency.warmup}, 0, "iterations before the timed ones");
  app.add_flag("--check,!--no-check", options.check, "check every byte and value, before and after the timed loop")
      ->capture_default_str();
  app.add_option("--json", options.json, "write the results as JSON to this file ('-': standard output)");
  app.add_option("--calibrate", options.calibrate,
                 "time calls of both modes and write what they say of this machine to this file, for `switchyard "
                 "plan --cluster`");
  app.add_option("--trace", options.trace, "write a Chrome / Perfetto trace of one more iteration to this file")
      ->capture_default_str();
  add_number(app, "--timeout-ms", {0, 86400000}, options.timeout_ms,
             "deadline of every wait; 0: SWITCHYARD_TIMEOUT_MS");
  add_latency_options(app, options.latency);
}

void validate_forked(BenchOptions const& options) {
  int const ranks = options.problem.ranks;
  int const nodes = std::max(1, options.nodes);
  require(nodes <= ranks, "--nodes: expected at most {}, one for each of --ranks, seen {}", ranks, nodes);
  require(ranks <= nodes * max_node_ranks,
          "--ranks: expected at most {}, {} a node, seen {} on {} node{} (--nodes)", nodes * max_node_ranks,
          max_node_ranks, ranks, nodes, nodes == 1 ? "" : "s");
}

void validate(BenchOptions const& options) {
  if (!options.calibrate.empty()) validate_calibration(options);
  validate_mode(options);
  bool const replays = options.routing == RoutingKind::replay;
  require(!replays || !options.routing_file.empty(),
          "--routing replay: expected --routing-file FILE.npy, seen none");
  require(replays || options.routing_file.empty(), "--routing-file: expected --routing replay, seen --routing {}",
          name_of(options.routing));
}

}  // namespace switchyard::cli
