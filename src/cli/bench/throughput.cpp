#include <algorithm>
#include <array>
#include <iterator>
#include <memory>
#include <vector>

#include "api/engine_table.hpp"
#include "base/deadline.hpp"
#include "base/processor_time.hpp"
#include "cli/bench/copy_ceiling.hpp"
#include "cli/bench/inputs.hpp"
#include "cli/bench/memory.hpp"
#include "cli/bench/wire.hpp"
#include "cli/bench/workload.hpp"
#include "cli/machine.hpp"
#include "oracle/payload.hpp"
#include "oracle/throughput_check.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::cli {

namespace {

BufferOptions throughput_options(Case const& of) {
  BenchOptions const& options = of.options();
  Problem const& problem = options.problem;
  return {.max_tokens = std::max<std::int64_t>(problem.tokens, 1),  // a buffer has room for one
          .hidden = problem.hidden,
          .num_experts = problem.experts,
          .top_k = problem.top_k,
          .heap_bytes = heap_bytes_for(problem, of.traffic()),
          .num_workers = options.workers,
          .timeout = options.timeout(),
          .engine = options.engine,
          .num_sms = options.sms};
}

constexpr std::array result_tensors{&Dispatched::x, &Dispatched::scales, &Dispatched::topk_idx,
                                    &Dispatched::topk_weights, &Dispatched::source_token};

class Throughput final : public Workload {
 public:
  Throughput(Case const& of, RankTools& tools);
  [[nodiscard]] EngineKind engine() const override { return buffer_.engine(); }
  void warm_up() override;
  std::optional<std::string> find_mismatch() override;
  void measure(Samples& samples) override;
  void iterate() override;
  Observation observe() override;

 private:
  void place_outputs();
  void combine(Dispatched const& routed);
  void iterate(Samples& samples);
  void iterate_empty(Samples& samples);
  [[nodiscard]] bool is_small() const;
  template <typename Work>
  void time(Part part, Samples& samples, Work&& work);
  double phases_us(Part part, Samples& samples);
  void spoil_next_result();
  [[nodiscard]] Dispatched fetch(Dispatched routed) const;
  void copy_on_gpu();
  void measure_copy(std::optional<CopyCeiling>& copies, Samples& samples);
  void measure_memory(Samples& samples);

  Case const& case_;
  Problem problem_;
  RankTools& tools_;
  Buffer buffer_;
  TensorMemory memory_;
  std::unique_ptr<GpuTimer> timer_;
  std::shared_ptr<void> gpu_copies_;
  BenchInputs inputs_;
  DispatchArgs args_;
  oracle::SeededData data_;
  oracle::ThroughputChecker checker_;
  ConstTensorView expert_outputs_;
  Tensor outputs_in_heap_;
  std::vector<std::uint16_t> outputs_on_host_;
  Tensor out_;
};

Throughput::Throughput(Case const& of, RankTools& tools)
    : case_(of),
      problem_(of.problem()),
      tools_(tools),
      buffer_(tools.communicator, throughput_options(of)),
      memory_(buffer_.engine() == EngineKind::cuda),
      timer_(memory_.on_gpu() ? require_gpu_tools().make_timer() : nullptr),
      inputs_(problem_, of.routing(0), tools.communicator.rank()),
      args_(inputs_.place(memory_)),
      data_(problem_, of.routing(0)),
      checker_(terms_of(problem_), {}, data_, tools.communicator.rank()),
      out_(buffer_.allocate(DType::bf16, {problem_.tokens, problem_.hidden})) {
  args_.cuda_stream = buffer_.cuda_stream();
  place_outputs();
}

// The CPU engine's outputs are made where they lie, so that no copy counts as memory.
void Throughput::place_outputs() {
  std::int64_t const rows = std::ssize(checker_.rows());
  auto const elements = static_cast<std::size_t>(rows * problem_.hidden);
  bool const in_heap = case_.options().outputs == OutputsIn::heap;
  if (in_heap) outputs_in_heap_ = buffer_.allocate(DType::bf16, {rows, problem_.hidden});
  if (in_heap && !memory_.on_gpu()) {
    checker_.write_outputs(outputs_in_heap_.data<void>());
    expert_outputs_ = outputs_in_heap_;
    return;
  }
  outputs_on_host_.resize(elements);
  checker_.write_outputs(outputs_on_host_.data());
  if (in_heap) {
    memory_.copy(outputs_in_heap_.data<std::byte>(), outputs_on_host_.data(), elements * 2);
    expert_outputs_ = outputs_in_heap_;
  } else {
    expert_outputs_ = memory_.place({outputs_on_host_.data(), DType::bf16, {rows, problem_.hidden}});
  }
}

void Throughput::combine(Dispatched const& routed) {
  CombineArgs args;
  args.x = expert_outputs_;
  args.handle = routed.handle;
  args.out = out_;
  args.cuda_stream = buffer_.cuda_stream();
  buffer_.combine(args);
}

// Takes the phases of a call that is complete, all or none, and returns their sum.
double Throughput::phases_us(Part part, Samples& samples) {
  std::vector<PhaseTime> const took = phases(buffer_);
  bool const all = took.size() == phase_names(part).size();
  double us = 0;
  for (PhaseTime const& phase : took) {
    us += phase.us;
    if (all) samples.of(Clock::phases, part).push_back(phase.us);
  }
  return us;
}

// Host time of a call from the moment when all ranks were ready to the end of this rank's work. GPU time from the
// moment when all ranks are released to that when this rank knows that its call is complete, both by the GPU's
// clock: events before and after would add their own time. Over nodes hosts make the rounds of a call, whatever the
// engine, and know its end.
template <typename Work>
void Throughput::time(Part part, Samples& samples, Work&& work) {
  std::int64_t const begin = tools_.start_line.align();
  if (memory_.on_gpu() && buffer_.communicator().num_nodes() == 1) {
    gate(buffer_);
    work();
    buffer_.synchronize();
    samples.of(Clock::device, part).push_back(phases_us(part, samples));
    return;
  }
  std::int64_t const cpu_begin = processor_ns();
  work();
  double const us = static_cast<double>(monotonic_ns() - begin) / 1e3;
  samples.of(Clock::host, part).push_back(us);
  samples.of(Clock::cpu, part).push_back(static_cast<double>(processor_ns() - cpu_begin) / 1e3);
}

void Throughput::iterate(Samples& samples) {
  Dispatched routed;
  WireCount const before = wire_count(buffer_);
  time(Part::dispatch, samples, [&] { routed = buffer_.dispatch(args_); });
  WireCount const between = wire_count(buffer_);
  time(Part::combine, samples, [&] { combine(routed); });
  WireCount const after = wire_count(buffer_);
  note_wire(Part::dispatch, before, between, samples);
  note_wire(Part::combine, between, after, samples);
  note_wire(Part::both, before, after, samples);
}

void Throughput::iterate() {
  Samples unused;
  iterate(unused);
}

std::vector<double> microseconds(std::vector<std::int64_t> const& ns) {
  std::vector<double> us;
  for (std::int64_t const each : ns) us.push_back(static_cast<double>(each) / 1e3);
  return us;
}

Observation Throughput::observe() {
  bool const counts = engine() == EngineKind::cpu;
  if (counts) count_calls(buffer_, true);
  int const calls = std::min(case_.options().iterations, most_observed);
  for (int i = 0; i < calls; ++i) iterate();
  if (!counts) return {.calls = calls};
  count_calls(buffer_, false);
  CallCounts const all = call_counts(buffer_);
  return {.calls = calls,
          .dispatch_wait_us = microseconds(all.dispatch_wait_ns),
          .combine_wait_us = microseconds(all.combine_wait_ns)};
}

void Throughput::warm_up() {
  for (int i = 0; i < case_.options().warmup; ++i) {
    tools_.progress.step("warming up");
    tools_.start_line.align(check_allowance);
    iterate();
  }
}

// The blocks of this result are those that the next dispatch gets.
void Throughput::spoil_next_result() {
  Dispatched const stale = buffer_.dispatch(args_);
  buffer_.synchronize();
  for (auto const part : result_tensors) memory_.poison(stale.*part);
  memory_.poison(out_);
}

// The same on the host.
Dispatched Throughput::fetch(Dispatched routed) const {
  for (auto const part : result_tensors) routed.*part = memory_.fetch(routed.*part);
  return routed;
}

std::optional<std::string> Throughput::find_mismatch() {
  tools_.start_line.align(check_allowance);
  spoil_next_result();
  tools_.start_line.align(check_allowance);
  Dispatched const routed = buffer_.dispatch(args_);
  combine(routed);
  buffer_.synchronize();
  return oracle::mismatch_of([&] {
    checker_.check_dispatch(fetch(routed));
    checker_.check_sums(memory_.fetch(out_).data<void>());
  });
}

void Throughput::copy_on_gpu() {
  auto const bytes = static_cast<std::size_t>(gpu_copy_bytes);
  if (!gpu_copies_) gpu_copies_ = require_gpu_tools().allocate(2 * bytes);
  auto* const base = static_cast<std::byte*>(gpu_copies_.get());
  require_gpu_tools().copy_async(base + bytes, base, bytes, buffer_.cuda_stream());
}

void Throughput::measure_copy(std::optional<CopyCeiling>& copies, Samples& samples) {
  tools_.start_line.align(check_allowance);
  if (memory_.on_gpu()) {
    copy_on_gpu();  // the first allocates
    gate(buffer_);
    timer_->begin(buffer_.cuda_stream());
    copy_on_gpu();
    timer_->end(buffer_.cuda_stream());
    samples.of(Clock::device, Part::copy).push_back(timer_->microseconds());
    return;
  }
  if (!copies) copies.emplace(copy_bytes(case_.options().on_machine), tools_.workers);
  time(Part::copy, samples, [&] { copies->copy(CopyKind::libc); });
  time(Part::stream_copy, samples, [&] { copies->copy(CopyKind::non_temporal); });
}

// Calls of no tokens, on every rank.
void Throughput::iterate_empty(Samples& samples) {
  DispatchArgs args = args_;
  for (ConstTensorView* const view : {&args.x, &args.scales, &args.topk_idx, &args.topk_weights})
    if (view->given()) view->shape[0] = 0;
  if (!memory_.on_gpu() || buffer_.communicator().num_nodes() > 1) time(Part::nothing, samples, [] {});
  Dispatched routed;
  time(Part::empty_dispatch, samples, [&] { routed = buffer_.dispatch(args); });
  CombineArgs back;
  back.x = expert_outputs_;
  back.x.shape[0] = 0;
  back.handle = routed.handle;
  back.cuda_stream = args.cuda_stream;
  time(Part::empty_combine, samples, [&] { buffer_.combine(back); });
}

// Whether a call moves so little that most of it stays in the caches of the processor.
bool Throughput::is_small() const {
  return !memory_.on_gpu() &&
         case_.moved().dispatch < static_cast<double>(copy_bytes_total(case_.options().on_machine));
}

void Throughput::measure(Samples& samples) {
  std::optional<CopyCeiling> copies;
  // Spread over the run, since what the machine gives changes while it is measured. Copies empty the caches, which
  // small calls find as the call before left them: so a copy comes before few of these.
  int const between_copies = is_small() ? 1 + case_.options().iterations / 10 : 1;
  // No call that is calibrated by is compared with them.
  bool const copies_wanted = case_.options().calibrate.empty() || !is_small();
  for (int i = 0; i < case_.options().iterations; ++i) {
    tools_.progress.step("measuring");
    if (copies_wanted && i % between_copies == 0) {
      measure_copy(copies, samples);
      Samples unused;
      if (is_small()) iterate(unused);
    }
    iterate(samples);
    Layout layout;
    if (memory_.on_gpu()) {
      time(Part::layout, samples, [&] { layout = buffer_.get_layout(args_.topk_idx, buffer_.cuda_stream()); });
    }
  }
  for (int i = 0; i < case_.options().iterations; ++i) iterate_empty(samples);
  copies.reset();
  measure_memory(samples);
}

void Throughput::measure_memory(Samples& samples) {
  Dispatched const routed = buffer_.dispatch(args_);
  combine(routed);
  tools_.start_line.align(check_allowance);  // all have released their copy buffers, and none its result
  ProcessMemory const memory = process_memory();
  samples.of(Clock::none, Part::pss) = {static_cast<double>(memory.proportional)};
  samples.of(Clock::none, Part::resident_peak) = {static_cast<double>(memory.resident_peak)};
  samples.of(Clock::none, Part::heap_peak) = {static_cast<double>(buffer_.heap_bytes_peak())};
  tools_.start_line.align(check_allowance);
}

}  // namespace

std::unique_ptr<Workload> make_throughput(Case const& of, RankTools& tools) {
  return std::make_unique<Throughput>(of, tools);
}

}  // namespace switchyard::cli
