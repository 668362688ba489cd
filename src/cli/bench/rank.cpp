#include "cli/bench/rank.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/bench/gather.hpp"
#include "cli/bench/memory.hpp"
#include "cli/bench/report.hpp"
#include "cli/bench/trace_file.hpp"
#include "cli/bench/workload.hpp"
#include "cli/machine.hpp"
#include "cli/print.hpp"
#include "job/job.hpp"
#include "switchyard/trace.hpp"

namespace switchyard::cli {

namespace {

class Rank {
 public:
  Rank(std::vector<Case> const& cases, Communicator const& communicator, SharedBarrier* barrier, bool speaks);
  int run();
  std::optional<Report> measure();

 private:
  [[nodiscard]] bool is_first() const { return tools_.communicator.rank() == 0; }
  [[nodiscard]] bool is_latency() const { return options_.mode == Mode::latency; }
  void say_result(std::string const& text) const;
  bool run_case(Case const& of);
  bool check(Workload& workload);
  void trace(Workload& workload);
  Observed observe(Workload& workload);

  std::vector<Case> const& cases_;
  BenchOptions const& options_;
  bool speaks_;
  Report report_;
  RankTools tools_;
};

Rank::Rank(std::vector<Case> const& cases, Communicator const& communicator, SharedBarrier* barrier, bool speaks)
    : cases_(cases),
      options_(cases.front().options()),
      speaks_(speaks),
      report_{.options = options_, .machine = describe_machine()},
      tools_{.communicator = communicator,
             .start_line = {communicator, barrier, options_.timeout()},
             // Rows of the low-latency mode come one after another, so that there is something to see.
             .progress = {communicator.rank() == 0 && speaks && !is_latency(),
                          options_.warmup + options_.iterations + 2}} {
  report_.workers = tools_.workers =
      options_.workers > 0 ? options_.workers : std::max(1, report_.machine.cores / options_.on_machine);
  // What is run, which may be less than was asked for.
  report_.options.token_counts.clear();
  for (Case const& of : cases) report_.options.token_counts.push_back(of.problem().tokens);
}

void Rank::say_result(std::string const& text) const {
  if (is_first() && speaks_) print(text_output(options_.json), text);
}

std::optional<Report> Rank::measure() {
  Job const& job = *tools_.communicator.job();
  take_gpu(options_.engine, job.topology().local_rank_of(job.rank()));
  for (Case const& of : cases_)
    if (!run_case(of)) return std::nullopt;
  return report_;
}

int Rank::run() {
  if (!is_latency()) say_result(headline(report_));
  if (!measure()) return 1;
  say_result(options_.check ? "checked: every received byte and every combined value, before and after\n"
                            : "not checked (--no-check)\n");
  if (is_first()) write_json(options_.json, to_json(report_));
  return 0;
}

bool Rank::run_case(Case const& of) {
  auto const workload = is_latency() ? make_low_latency(of, tools_) : make_throughput(of, tools_);
  report_.engine = workload->engine();
  if (is_latency() && &of == &cases_.front()) say_result(headline(report_));  // names the engine
  workload->warm_up();
  if (!check(*workload)) return false;
  Samples mine;
  workload->measure(mine);
  OpenDescriptors const open = open_descriptors();
  mine.of(Clock::none, Part::descriptors) = {static_cast<double>(open.all)};
  mine.of(Clock::none, Part::connections) = {static_cast<double>(open.connections)};
  if (!check(*workload)) return false;
  if (!options_.trace.empty()) trace(*workload);
  Observed observed;
  if (!options_.json.empty()) observed = observe(*workload);
  auto const all = gather_samples(tools_.communicator, mine);
  if (!is_first()) return true;
  report_.cases.push_back(make_case_report(of, all));
  if (!options_.json.empty()) {
    report_.cases.back().observed = std::move(observed);
    report_.cases.back().traffic = pair_traffic(of);
  }
  tools_.progress.clear();
  if (speaks_) say_result(to_table(report_));
  return true;
}

bool Rank::check(Workload& workload) {
  tools_.progress.step("checking");
  if (!options_.check) return true;
  auto const mine = workload.find_mismatch();
  tools_.start_line.align(check_allowance);
  auto const found = gather_mismatches(tools_.communicator, mine);
  if (is_first()) {
    for (auto const& text : found) say("mismatch: {}", text);
  }
  return found.empty();
}

void Rank::trace(Workload& workload) {
  set_trace_enabled(true);
  workload.iterate();
  set_trace_enabled(false);
  write_trace(tools_.communicator, options_.trace);
}

Observed Rank::observe(Workload& workload) {
  set_trace_enabled(true);
  Observation mine = workload.observe();
  set_trace_enabled(false);
  note_phases(take_trace(tools_.communicator.rank()), mine);
  return gather_observations(tools_.communicator, mine);
}

}  // namespace

int run_rank(std::vector<Case> const& cases, Communicator const& communicator, SharedBarrier* barrier) {
  return Rank(cases, communicator, barrier, true).run();
}

std::optional<Report> measure_rank(std::vector<Case> const& cases, Communicator const& communicator,
                                   SharedBarrier* barrier) {
  return Rank(cases, communicator, barrier, false).measure();
}

}  // namespace switchyard::cli
