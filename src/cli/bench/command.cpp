#include "cli/bench/command.hpp"

#include <cstdlib>
#include <string_view>

#include "base/check.hpp"
#include "bootstrap/environment.hpp"
#include "cli/bench/footprint.hpp"
#include "cli/bench/gather.hpp"
#include "cli/bench/rank.hpp"
#include "cli/bench/result_file.hpp"
#include "cli/bench/throughput.hpp"
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

BenchPlan make_plan(BenchOptions const& options, Router const& route) {
  RoutingTable routing = route(options.problem);
  auto traffic = count_traffic(options.problem, routing);
  return {.options = options, .routing = std::move(routing), .traffic = std::move(traffic)};
}

void say_fewer_tokens(std::int64_t wanted, std::int64_t taken, std::int64_t available) {
  if (taken == wanted) return;
  say("{} tokens a rank do not fit into the {} MiB of memory that are available: {} tokens", wanted,
      available >> 20, taken);
}

Communicator connect(RankContext const& context) {
  return Communicator::connect({.rank = context.rank,
                                .size = context.size,
                                .address = context.address,
                                .token = context.token,
                                .serve = false});
}

// As one rank of the job that launched this process.
Communicator join(BenchOptions const& options) {
  CommunicatorOptions const job = options_from_environment(process_environment());
  require(
      !options.ranks_given || options.problem.ranks == job.size,
      "--ranks: expected {}, the size of the job that launched this process (or --launch fork, for ranks of its "
      "own), seen {}",
      job.size, options.problem.ranks);
  return Communicator::connect(job);
}

int bench_forked(BenchOptions options, Router const& route) {
  std::int64_t const wanted = options.problem.tokens;
  std::int64_t const available = available_memory();
  options.problem.tokens = tokens_that_fit(options.problem, route, available);
  say_fewer_tokens(wanted, options.problem.tokens, available);
  BenchPlan const plan = make_plan(options, route);
  return run_local_ranks({.ranks = options.problem.ranks}, [&plan](RankContext const& context) {
    return run_rank_bench(plan, connect(context), context.barrier);
  });
}

int bench_as_rank(BenchOptions options, Router const& route) {
  Communicator communicator = join(options);
  options.problem.ranks = communicator.size();
  std::int64_t const wanted = options.problem.tokens;
  std::int64_t const available = gather_min(communicator, available_memory());
  options.problem.tokens = tokens_that_fit(options.problem, route, available);
  if (communicator.rank() == 0) say_fewer_tokens(wanted, options.problem.tokens, available);
  BenchPlan const plan = make_plan(options, route);
  return run_rank_bench(plan, std::move(communicator), nullptr);
}

int latency_forked(BenchOptions const& options, Router const& route) {
  return run_local_ranks({.ranks = options.problem.ranks}, [&](RankContext const& context) {
    return run_rank_latency(options, route, connect(context), context.barrier);
  });
}

int latency_as_rank(BenchOptions options, Router const& route) {
  Communicator communicator = join(options);
  options.problem.ranks = communicator.size();
  return run_rank_latency(options, route, std::move(communicator), nullptr);
}

}  // namespace

int run_bench(BenchOptions options) {
  validate(options);
  if (!options.json.empty() && options.json != "-") require_writable(options.json);
  if (!options.trace.empty()) require_writable(options.trace);
  Router const route = router_of(options);
  Problem sample = options.problem;
  sample.tokens = 1;
  static_cast<void>(route(sample));  // recorded ids that do not fit the options are refused here
  bool const as_rank =
      options.launch == Launch::environment || (options.launch == Launch::detect && launched_by_another());
  if (options.mode == Mode::latency)
    return as_rank ? latency_as_rank(options, route) : latency_forked(options, route);
  return as_rank ? bench_as_rank(std::move(options), route) : bench_forked(std::move(options), route);
}

}  // namespace switchyard::cli
