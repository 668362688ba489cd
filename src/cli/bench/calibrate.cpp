#include "cli/bench/calibrate.hpp"

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <set>
#include <string>

#include "api/engine_table.hpp"
#include "base/check.hpp"
#include "cli/bench/gather.hpp"
#include "cli/bench/rank.hpp"
#include "cli/bench/result_file.hpp"
#include "cli/machine.hpp"
#include "cli/plan/calibration_file.hpp"
#include "cli/print.hpp"
#include "plan/simulator/call_time.hpp"

namespace switchyard::cli {

namespace {

using simulator::ModeFit;
using simulator::Operation;
using simulator::TimedCall;

// All counts are timed that often, one after another: what a machine gives changes from one minute to the next.
constexpr int rounds = 2;
// Buffers of the low-latency mode have room for as many rows of each expert from each rank.
constexpr std::int64_t most_latency_tokens = 1024;

std::vector<std::int64_t> counts_of(BenchOptions const& options, Mode mode) {
  std::vector<std::int64_t> counts = options.token_counts;
  if (counts.empty()) counts = {0, 4, 16, 64, 256, 1024};
  if (mode == Mode::latency) std::erase_if(counts, [](auto const count) { return count > most_latency_tokens; });
  return counts;
}

// Few of those that take long.
int iterations_for(std::int64_t tokens, int most) {
  auto const enough = std::clamp<std::int64_t>(4096 / std::max<std::int64_t>(tokens, 1), 8, 50);
  return std::min(most, static_cast<int>(enough));
}

class Calibrator {
 public:
  Calibrator(CalibrationCases const& cases, Communicator communicator, SharedBarrier* barrier)
      : cases_(cases),
        options_(cases.throughput.front().options()),
        communicator_(std::move(communicator)),
        barrier_(barrier),
        library_(simulator::calibrated_library()) {}

  int run();

 private:
  struct Calls {
    std::vector<TimedCall> dispatch{};
    std::vector<TimedCall> combine{};
  };

  simulator::SharedNode shared_node();
  bool time_round(std::vector<Case> const& cases, Calls& calls);
  [[nodiscard]] double bytes_of(Case const& of, Operation operation) const;
  [[nodiscard]] std::string text(Calibration const& found) const;

  CalibrationCases const& cases_;
  BenchOptions const& options_;
  Communicator communicator_;
  SharedBarrier* barrier_;
  simulator::Library library_;
  simulator::Machine machine_{.gpus_per_node = max_node_ranks};
  EngineKind engine_ = EngineKind::cpu;
};

// GPUs count by their names to the driver, as each rank sees them.
simulator::SharedNode Calibrator::shared_node() {
  if (engine_ != EngineKind::cuda) return {.memories = 1, .cores = describe_machine().cores};
  char const* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  std::string const gpu = fmt::format("{}:{}", visible == nullptr ? "" : visible, gpu_tools()->current_gpu());
  return {.memories = std::max(1, communicator_.size() / count_same(communicator_, gpu))};
}

// Of all ranks that share a memory, as the plan counts them; the mean of the sets of inputs.
double Calibrator::bytes_of(Case const& of, Operation operation) const {
  double sum = 0;
  for (int set = 0; set < of.sets(); ++set) {
    Problem const problem = of.problem(set);
    auto const scales = static_cast<std::size_t>(problem.sends_fp8() ? problem.scale_groups() * 4 : 0);
    simulator::Job const job{
        .machine = &machine_,
        .library = &library_,
        .mode = of.options().mode == Mode::latency ? simulator::Mode::latency : simulator::Mode::throughput,
        .ranks = problem.ranks,
        .tokens = problem.tokens,
        .top_k = problem.top_k,
        .experts = problem.experts,
        .payload_bytes = static_cast<std::size_t>(problem.received_row_bytes()) - scales,
        .scale_bytes = scales,
        .output_bytes = static_cast<std::size_t>(problem.combine_row_bytes())};
    auto const ids = static_cast<std::size_t>(problem.tokens * problem.top_k);
    std::vector<simulator::SourceIds> sources;
    for (int rank = 0; rank < problem.ranks; ++rank)
      sources.push_back({.rank = rank, .ids = {of.routing(set).token(rank, 0).data(), ids}});
    auto const traffic = count_traffic(job, topology_of(job), sources);
    sum += shared_bytes(job, traffic, operation, traffic.link.max);
  }
  return sum / of.sets();
}

// By the GPU's clock where there is one.
double median_us(CaseReport const& report, Part part) {
  double us = 0;
  for (PartTime const& time : report.times)
    if (time.part == part && (time.clock == Clock::host || time.clock == Clock::device)) us = time.us.p50;
  return us;
}

bool Calibrator::time_round(std::vector<Case> const& cases, Calls& calls) {
  auto const report = measure_rank(cases, communicator_, barrier_);
  if (!report) return false;
  engine_ = report->engine;
  for (std::size_t at = 0; at < report->cases.size(); ++at) {
    CaseReport const& one = report->cases[at];
    auto const timed = [&](Operation operation, Part part) {
      return TimedCall{
          .tokens = one.problem.tokens, .bytes = bytes_of(cases[at], operation), .us = median_us(one, part)};
    };
    calls.dispatch.push_back(timed(Operation::dispatch, Part::dispatch));
    calls.combine.push_back(timed(Operation::combine, Part::combine));
  }
  return true;
}

std::string today() {
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr)));
}

CalibratedMode fitted(char const* mode, std::vector<TimedCall> const& dispatch,
                      std::vector<TimedCall> const& combine) {
  CalibratedMode result{.fit = simulator::fit_mode(mode, dispatch, combine)};
  result.least_tokens = result.fit.dispatch.residuals.front().tokens;
  result.most_tokens = result.fit.dispatch.residuals.back().tokens;
  return result;
}

std::string problem_text(Problem const& problem, std::string_view routing) {
  return fmt::format("hidden {}, top-{} of {} experts, {} routing, {} dispatch and bf16 combine", problem.hidden,
                     problem.top_k, problem.experts, routing, name_of(problem.payload));
}

void put_operation(std::string& text, std::string_view mode, char const* name, simulator::OperationFit const& fit) {
  auto const& figures = fit.figures;
  text += fmt::format("{:<10} {:<9} {:>9.1f} {:>12.1f} {:>12.1f} {:>7.0f} %  ", mode, name, figures.fixed_us,
                      figures.cached_rate / 1e9, figures.memory_rate / 1e9, figures.spread * 100);
  for (auto const& residual : fit.residuals) text += fmt::format("{:>+5.0f}", residual.error * 100);
  text += fmt::format("\n{:>65}", "runs differ by ");
  for (auto const& residual : fit.residuals) text += fmt::format("{:>5.0f}", residual.scatter * 100);
  text += "\n";
}

void put_mode(std::string& text, std::string_view mode, ModeFit const& fit) {
  text += fmt::format("{:<10} {:<9} {:>9} {:>12} {:>12} {:>9}   predicted / timed - 1 in %, by tokens\n{:65}", mode,
                      "", "fixed us", "GB/s cached", "GB/s memory", "spread", "");
  for (auto const& residual : fit.dispatch.residuals) text += fmt::format("{:>5}", residual.tokens);
  text += "\n";
  put_operation(text, "", "dispatch", fit.dispatch);
  put_operation(text, "", "combine", fit.combine);
}

std::string Calibrator::text(Calibration const& found) const {
  std::string text =
      fmt::format("switchyard bench --calibrate: {} engine, {} ranks that share {} memor{}", found.engine,
                  found.ranks, found.shared.memories, found.shared.memories == 1 ? "y" : "ies");
  if (found.shared.cores > 0) text += fmt::format(" and {} cores", found.shared.cores);
  text += "\n  " + problem_text(options_.problem, name_of(options_.routing)) + "\n\n";
  put_mode(text, "throughput", found.throughput.fit);
  put_mode(text, "latency", found.latency.fit);
  text += fmt::format(
      "\nrates are of all ranks that share a memory, read and written; spread is one standard deviation\n"
      "written: {}\nnext: switchyard plan --cluster {} --tokens 64,4096\n",
      options_.calibrate, options_.calibrate);
  return text;
}

int Calibrator::run() {
  Calls throughput;
  Calls latency;
  for (int round = 0; round < rounds; ++round) {
    if (!time_round(cases_.throughput, throughput)) return 1;
    if (!time_round(cases_.latency, latency)) return 1;
  }
  simulator::SharedNode const shared = shared_node();
  if (communicator_.rank() != 0) return 0;
  Calibration const found{.date = today(),
                          .version = SWITCHYARD_VERSION,
                          .engine = std::string(name_of(engine_)),
                          .ranks = communicator_.size(),
                          .shared = shared,
                          .row_bytes = options_.problem.received_row_bytes(),
                          .throughput = fitted("throughput", throughput.dispatch, throughput.combine),
                          .latency = fitted("latency", latency.dispatch, latency.combine)};
  Machine const machine = describe_machine();
  write_file(options_.calibrate,
             calibration_yaml(found, {.processor = fmt::format("{}, {} cores", machine.cpu_model, machine.cores),
                                      .problem = problem_text(options_.problem, name_of(options_.routing)),
                                      .memory_bytes = std::max(
                                          1e8, static_cast<double>(machine.memory_bytes) / communicator_.size())}));
  print(stdout, text(found));
  return 0;
}

}  // namespace

std::vector<BenchOptions> calibration_options(BenchOptions const& options, Mode mode) {
  auto const counts = counts_of(options, mode);
  require(std::set(counts.begin(), counts.end()).size() >= 3,
          "--tokens: with --calibrate expected 3 or more different counts (low-latency mode: up to {}), seen {}",
          most_latency_tokens, fmt::join(counts, ","));
  std::vector<BenchOptions> all;
  for (std::int64_t const tokens : counts) {
    BenchOptions one = options;
    one.mode = mode;
    one.check = false;
    one.token_counts = one.latency.tokens = {tokens};
    one.iterations = iterations_for(tokens, options.iterations);
    one.latency.iterations = iterations_for(tokens, options.latency.iterations);
    // An ordinary benchmark calls three times in an iteration, and calls get faster for some dozens of them.
    one.latency.warmup = 3 * options.latency.warmup;
    one.latency.graphs = false;
    all.push_back(std::move(one));
  }
  return all;
}

int calibrate(CalibrationCases const& cases, Communicator communicator, SharedBarrier* barrier) {
  return Calibrator(cases, std::move(communicator), barrier).run();
}

}  // namespace switchyard::cli
