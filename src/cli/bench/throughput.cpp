#include "cli/bench/throughput.hpp"

#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/check.hpp"
#include "base/deadline.hpp"
#include "cli/bench/copy_ceiling.hpp"
#include "cli/bench/footprint.hpp"
#include "cli/bench/gather.hpp"
#include "cli/bench/inputs.hpp"
#include "cli/bench/output.hpp"
#include "cli/bench/progress.hpp"
#include "cli/bench/report.hpp"
#include "cli/bench/start_line.hpp"
#include "cli/bench/throughput_memory.hpp"
#include "cli/bench/trace_file.hpp"
#include "cli/machine.hpp"
#include "cli/print.hpp"
#include "oracle/payload.hpp"
#include "oracle/throughput_check.hpp"
#include "switchyard/trace.hpp"

namespace switchyard::cli {

namespace {

BufferOptions buffer_options(BenchPlan const& plan) {
  Problem const& problem = plan.options.problem;
  return {.max_tokens = problem.tokens,
          .hidden = problem.hidden,
          .num_experts = problem.experts,
          .top_k = problem.top_k,
          .heap_bytes = heap_bytes_for(problem, plan.traffic),
          .num_workers = plan.options.workers,
          .timeout = plan.options.timeout(),
          .engine = plan.options.engine,
          .num_sms = plan.options.sms};
}

int workers_of(BenchOptions const& options) {
  return options.workers > 0 ? options.workers : std::max(1, describe_machine().cores / options.problem.ranks);
}

class RankBench {
 public:
  RankBench(BenchPlan const& plan, Communicator communicator, SharedBarrier* barrier);
  int run();

 private:
  struct Times {
    double dispatch_us = 0;
    double combine_us = 0;
    std::vector<PhaseTime> dispatch_phases;
    std::vector<PhaseTime> combine_phases;
  };

  template <typename Work>
  double timed_us(Work&& work);
  Tensor combine(Dispatched const& routed);
  Times iterate();
  double layout_us();
  void keep_phases(Times const& times);
  bool check();
  std::optional<std::string> find_mismatch();
  void measure_copy(std::optional<CopyCeiling>& copies);
  void measure_times();
  void measure_memory();
  void trace();
  void report();

  DispatchArgs place_inputs();
  void place_outputs();

  BenchPlan const& plan_;
  Problem const& problem_;
  Communicator communicator_;
  StartLine start_line_;
  int workers_;
  Buffer buffer_;
  BenchMemory memory_;
  BenchInputs inputs_;
  DispatchArgs args_;
  oracle::SeededData data_;
  oracle::ThroughputChecker checker_;
  ConstTensorView expert_outputs_;
  Tensor outputs_in_heap_;
  std::vector<std::uint16_t> outputs_on_host_;
  Tensor out_;
  RankSamples samples_;
  Progress progress_;
};

RankBench::RankBench(BenchPlan const& plan, Communicator communicator, SharedBarrier* barrier)
    : plan_(plan),
      problem_(plan.options.problem),
      communicator_(std::move(communicator)),
      start_line_(communicator_, barrier, plan.options.timeout()),
      workers_(workers_of(plan.options)),
      buffer_(communicator_, buffer_options(plan)),
      memory_(buffer_),
      inputs_(problem_, plan.routing, communicator_.rank()),
      args_(place_inputs()),
      data_(problem_, plan.routing),
      checker_(terms_of(problem_), {}, data_, communicator_.rank()),
      out_(buffer_.allocate(DType::bf16, {problem_.tokens, problem_.hidden})),
      progress_(communicator_.rank() == 0, plan.options.warmup + plan.options.iterations + 3) {
  place_outputs();
}

DispatchArgs RankBench::place_inputs() {
  DispatchArgs args = inputs_.args();
  args.x = memory_.place(args.x);
  args.scales = memory_.place(args.scales);
  args.topk_idx = memory_.place(args.topk_idx);
  args.topk_weights = memory_.place(args.topk_weights);
  args.cuda_stream = buffer_.cuda_stream();
  return args;
}

// The CPU engine's outputs are made where they lie, so that no copy counts as memory.
void RankBench::place_outputs() {
  std::int64_t const rows = std::ssize(checker_.rows());
  auto const elements = static_cast<std::size_t>(rows * problem_.hidden);
  bool const in_heap = plan_.options.outputs == OutputsIn::heap;
  if (in_heap) outputs_in_heap_ = buffer_.allocate(DType::bf16, {rows, problem_.hidden});
  if (in_heap && !memory_.on_gpu()) {
    checker_.write_outputs(outputs_in_heap_.data<void>());
    expert_outputs_ = outputs_in_heap_;
    return;
  }
  outputs_on_host_.resize(elements);
  checker_.write_outputs(outputs_on_host_.data());
  ConstTensorView const host{outputs_on_host_.data(), DType::bf16, {rows, problem_.hidden}};
  if (in_heap) {
    memory_.write(outputs_in_heap_, outputs_on_host_.data());
    expert_outputs_ = outputs_in_heap_;
  } else {
    expert_outputs_ = memory_.place(host);
  }
}

int RankBench::run() {
  for (int i = 0; i < plan_.options.warmup; ++i) {
    progress_.step("warming up");
    start_line_.align(check_allowance);
    iterate();
  }
  progress_.step("checking");
  if (plan_.options.check && !check()) return 1;
  measure_times();
  measure_memory();
  progress_.step("checking");
  if (plan_.options.check && !check()) return 1;
  if (!plan_.options.trace.empty()) trace();
  progress_.step("done");
  report();
  return 0;
}

// From the moment when all ranks were ready to the end of this rank's work.
template <typename Work>
double RankBench::timed_us(Work&& work) {
  std::int64_t const begin = start_line_.align();
  if (memory_.on_gpu()) return memory_.call_us(work);
  work();
  return static_cast<double>(monotonic_ns() - begin) / 1e3;
}

Tensor RankBench::combine(Dispatched const& routed) {
  CombineArgs args;
  args.x = expert_outputs_;
  args.handle = routed.handle;
  args.out = out_;
  args.cuda_stream = buffer_.cuda_stream();
  buffer_.combine(args);
  return out_;
}

RankBench::Times RankBench::iterate() {
  Dispatched routed;
  Times times;
  times.dispatch_us = timed_us([&] { routed = buffer_.dispatch(args_); });
  times.dispatch_phases = phases(buffer_);
  times.combine_us = timed_us([&] { combine(routed); });
  times.combine_phases = phases(buffer_);
  return times;
}

double RankBench::layout_us() {
  Layout layout;
  return timed_us([&] { layout = buffer_.get_layout(args_.topk_idx, buffer_.cuda_stream()); });
}

std::optional<std::string> RankBench::find_mismatch() {
  {
    // The blocks of this result are those that the next dispatch gets.
    Dispatched const stale = buffer_.dispatch(args_);
    buffer_.synchronize();
    for (Tensor const* tensor :
         {&stale.x, &stale.scales, &stale.topk_idx, &stale.topk_weights, &stale.source_token}) {
      memory_.poison(*tensor);
    }
  }
  memory_.poison(out_);
  start_line_.align(check_allowance);
  Dispatched const routed = buffer_.dispatch(args_);
  combine(routed);
  buffer_.synchronize();
  return oracle::mismatch_of([&] {
    checker_.check_dispatch(memory_.fetch(routed));
    checker_.check_sums(memory_.fetch(out_).data<void>());
  });
}

bool RankBench::check() {
  start_line_.align(check_allowance);
  auto const mine = find_mismatch();
  start_line_.align(check_allowance);
  auto const found = gather_mismatches(communicator_, mine);
  if (communicator_.rank() == 0) {
    for (auto const& text : found) say("mismatch: {}", text);
  }
  return found.empty();
}

void RankBench::measure_copy(std::optional<CopyCeiling>& copies) {
  start_line_.align(check_allowance);
  if (memory_.on_gpu()) {
    memory_.copy_on_gpu();  // the first allocates
    samples_.device_copy_us.push_back(memory_.gpu_us([&] { memory_.copy_on_gpu(); }));
    return;
  }
  if (!copies) copies.emplace(workers_);
  samples_.libc_copy_us.push_back(timed_us([&] { copies->copy(CopyKind::libc); }));
  samples_.non_temporal_copy_us.push_back(timed_us([&] { copies->copy(CopyKind::non_temporal); }));
}

// What the report takes apart again: all or none of a call's phases.
void RankBench::keep_phases(Times const& times) {
  auto const keep = [](std::vector<PhaseTime> const& phases, std::size_t expected, std::vector<double>& to) {
    if (phases.size() != expected) return;
    for (PhaseTime const& phase : phases) to.push_back(phase.us);
  };
  keep(times.dispatch_phases, dispatch_phase_names.size(), samples_.dispatch_phases_us);
  keep(times.combine_phases, combine_phase_names.size(), samples_.combine_phases_us);
  samples_.layout_us.push_back(layout_us());
  keep(phases(buffer_), layout_phase_names.size(), samples_.layout_phases_us);
}

void RankBench::measure_times() {
  std::optional<CopyCeiling> copies;
  for (int i = 0; i < plan_.options.iterations; ++i) {
    progress_.step("measuring");
    measure_copy(copies);  // each time: what the machine gives changes while it is measured
    Times const times = iterate();
    samples_.dispatch_us.push_back(times.dispatch_us);
    samples_.combine_us.push_back(times.combine_us);
    if (memory_.on_gpu()) keep_phases(times);
  }
}

void RankBench::measure_memory() {
  Dispatched const routed = buffer_.dispatch(args_);
  combine(routed);
  start_line_.align(check_allowance);  // all have released their copy buffers, and none its result
  ProcessMemory const memory = process_memory();
  samples_.pss_bytes = static_cast<double>(memory.proportional);
  samples_.resident_peak_bytes = static_cast<double>(memory.resident_peak);
  samples_.heap_peak_bytes = static_cast<double>(buffer_.heap_bytes_peak());
  start_line_.align(check_allowance);
}

void RankBench::trace() {
  set_trace_enabled(true);
  iterate();
  set_trace_enabled(false);
  write_trace(communicator_, plan_.options.trace);
}

void RankBench::report() {
  auto const all = gather_samples(communicator_, samples_);
  if (communicator_.rank() != 0) return;
  BenchReport report = make_report(plan_.options, plan_.traffic, all);
  report.workers = workers_;
  report.engine = buffer_.engine();
  print(text_output(plan_.options.json), to_table(report));
  write_json(plan_.options.json, to_json(report));
}

}  // namespace

int run_rank_bench(BenchPlan const& plan, Communicator communicator, SharedBarrier* barrier) {
  if (communicator.rank() == 0)
    print(text_output(plan.options.json), headline(plan.options, workers_of(plan.options)) + "\n");
  take_gpu(plan.options.engine, communicator.rank());
  return RankBench(plan, std::move(communicator), barrier).run();
}

}  // namespace switchyard::cli
