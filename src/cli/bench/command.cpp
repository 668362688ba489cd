#include "cli/bench/command.hpp"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "bootstrap/environment.hpp"
#include "cli/bench/calibrate.hpp"
#include "cli/bench/case.hpp"
#include "cli/bench/copy_ceiling.hpp"
#include "cli/bench/gather.hpp"
#include "cli/bench/rank.hpp"
#include "cli/bench/result_file.hpp"
#include "cli/launcher.hpp"
#include "cli/machine.hpp"
#include "cli/print.hpp"

namespace switchyard::cli {

namespace {

bool is_set(char const* variable) {
  return std::getenv(variable) != nullptr;
}

// Whether this process is one rank of a job of torchrun, mpirun or srun, or of docs/api.md's own variables. A
// shell inside an allocation of Slurm is a job of one task, and launches its ranks itself.
bool launched_by_another() {
  char const* const tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  bool const by_srun = is_set("SLURM_PROCID") && tasks != nullptr && std::string_view(tasks) != "1";
  bool const by_torchrun = is_set("RANK") && is_set("WORLD_SIZE") && is_set("MASTER_ADDR");
  return is_set("SWITCHYARD_RANK") || by_torchrun || is_set("OMPI_COMM_WORLD_RANK") || is_set("PMI_RANK") ||
         by_srun;
}

Router router_of(BenchOptions const& options) {
  auto recorded = options.routing_file.empty() ? oracle::IdTable{} : oracle::read_npy(options.routing_file);
  return [kind = options.routing, recorded = std::move(recorded)](Problem const& problem) {
    return make_routing(problem, kind, recorded);
  };
}

Communicator connect(RankContext const& context) {
  return Communicator::connect({.rank = context.rank,
                                .size = context.size,
                                .address = context.address,
                                .token = context.token,
                                .serve = false,
                                .node = context.node});
}

// As one rank of the job that launched this process.
Communicator join(BenchOptions const& options) {
  CommunicatorOptions const job = options_from_environment(process_environment());
  require(
      !options.ranks_given || options.problem.ranks == job.size,
      "--ranks: expected {}, the size of the job that launched this process (or --launch fork, for ranks of its "
      "own), seen {}",
      job.size, options.problem.ranks);
  Communicator communicator = Communicator::connect(job);
  require(options.nodes == 0 || options.nodes == communicator.num_nodes(),
          "--nodes: expected {}, which the job that launched this process has (SWITCHYARD_NODE, or --launch fork, "
          "plays others), seen {}",
          communicator.num_nodes(), options.nodes);
  return communicator;
}

// Tokens of the throughput mode are as many as memory has room for; those of the low-latency mode are few.
std::vector<Case> make_cases(BenchOptions const& options, Router const& route, std::int64_t available,
                             bool speaks) {
  std::vector<Case> cases;
  if (options.mode == Mode::latency) {
    for (std::int64_t const tokens : options.latency.tokens) cases.emplace_back(options, route, tokens);
    return cases;
  }
  auto counts = options.token_counts;
  if (counts.empty()) counts = {options.problem.tokens};
  for (std::int64_t const wanted : counts) {
    Problem problem = options.problem;
    problem.tokens = wanted;
    std::int64_t const tokens = tokens_that_fit(problem, route, available, copy_bytes_total(options.on_machine));
    if (speaks && tokens != wanted) {
      say("{} tokens a rank do not fit into the {} MiB of memory that are available: {} tokens", wanted,
          available >> 20, tokens);
    }
    cases.emplace_back(options, route, tokens);
  }
  return cases;
}

// What a rank does, once it is connected.
using RankBody = std::function<int(Communicator const&, SharedBarrier*)>;

RankBody body_of(BenchOptions const& options, Router const& route, std::int64_t available, bool speaks) {
  auto const cases_of = [&](Mode mode) {
    std::vector<Case> cases;
    for (BenchOptions const& one : calibration_options(options, mode))
      std::ranges::move(make_cases(one, route, available, speaks), std::back_inserter(cases));
    return cases;
  };
  if (options.calibrate.empty())
    return [cases = make_cases(options, route, available, speaks)](Communicator const& communicator,
                                                                   SharedBarrier* barrier) {
      return run_rank(cases, communicator, barrier);
    };
  return [cases = CalibrationCases{.throughput = cases_of(Mode::throughput), .latency = cases_of(Mode::latency)}](
             Communicator const& communicator, SharedBarrier* barrier) {
    return calibrate(cases, communicator, barrier);
  };
}

int run_forked(BenchOptions options, Router const& route) {
  validate_forked(options);
  LaunchOptions const launch{.ranks = options.problem.ranks, .nodes = std::max(1, options.nodes)};
  if (launch.nodes > 1) options.problem.node_by_rank = divide_into_nodes(launch.ranks, launch.nodes);
  options.on_machine = launch.ranks;
  auto const body = body_of(options, route, available_memory(), true);
  return run_local_ranks(launch,
                         [&](RankContext const& context) { return body(connect(context), context.barrier); });
}

int run_as_rank(BenchOptions options, Router const& route) {
  Communicator communicator = join(options);
  options.problem.ranks = communicator.size();
  if (communicator.num_nodes() > 1) options.problem.node_by_rank = communicator.node_by_rank();
  // Ranks of one machine share its memory, whatever nodes they play to be on.
  options.on_machine = count_same(communicator, machine_id());
  std::int64_t const available =
      gather_min(communicator, available_memory() / options.on_machine) * communicator.size();
  require(options.calibrate.empty() || communicator.num_nodes() == 1,
          "--calibrate: expected a job of one node, seen {}", communicator.num_nodes());
  return body_of(options, route, available, communicator.rank() == 0)(communicator, nullptr);
}

}  // namespace

int run_bench(BenchOptions const& options) {
  validate(options);
  if (!options.json.empty() && options.json != "-") require_writable(options.json);
  if (!options.trace.empty()) require_writable(options.trace);
  if (!options.calibrate.empty()) require_writable(options.calibrate);
  Router const route = router_of(options);
  Problem sample = options.problem;
  sample.tokens = 1;
  static_cast<void>(route(sample));  // recorded ids that do not fit the options are refused here
  bool const as_rank =
      options.launch == Launch::environment || (options.launch == Launch::detect && launched_by_another());
  return as_rank ? run_as_rank(options, route) : run_forked(options, route);
}

}  // namespace switchyard::cli
