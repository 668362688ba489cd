#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "api/engine_table.hpp"
#include "base/deadline.hpp"
#include "cli/bench/low_latency_calls.hpp"
#include "cli/bench/wire.hpp"
#include "cli/bench/workload.hpp"
#include "oracle/payload.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::cli {

namespace {

// Parts that follow one another with one result, and leave none behind.
constexpr std::array alone{Part::nothing};
constexpr std::array whole_calls{Part::dispatch, Part::combine};
constexpr std::array halves{Part::dispatch_send, Part::dispatch_receive, Part::combine_send, Part::combine_receive};
constexpr std::array together{Part::both};
constexpr std::array<std::span<Part const>, 4> sequences{alone, whole_calls, halves, together};

// A calibration asks for whole calls only.
std::span<std::span<Part const> const> sequences_of(BenchOptions const& options) {
  std::span<std::span<Part const> const> const all(sequences);
  return options.calibrate.empty() ? all : all.subspan(1, 1);
}

// Calls of a model's layers, which use the buffer's frames in turn: of a frame that is used again, the result was
// released layers ago.
constexpr int graph_layers = 8;

class LowLatency final : public Workload {
 public:
  LowLatency(Case const& of, RankTools& tools) : case_(of), tools_(tools), calls_(of, tools.communicator) {}
  [[nodiscard]] EngineKind engine() const override { return calls_.engine(); }
  void warm_up() override {}  // each clock does
  std::optional<std::string> find_mismatch() override;
  void measure(Samples& samples) override;
  void iterate() override;
  Observation observe() override;

 private:
  void dispatch(int set);
  void combine();
  std::optional<std::string> find_mismatch(int set);
  void touch_outputs();

  // Microseconds of a part.
  using Measure = std::function<double(Part)>;
  void time(Clock clock, Measure const& measure, Samples& samples);
  void by_host(Samples& samples);
  void by_device(Samples& samples);
  void by_graphs(Samples& samples);
  void queue_stamped(Part part);
  using Layer = std::vector<std::unique_ptr<GpuGraph>>;
  Layer capture(std::span<Part const> sequence);
  void replay(std::span<Part const> sequence, Samples& samples);

  Case const& case_;
  RankTools& tools_;
  LatencyCalls calls_;
  std::unique_ptr<GpuStamps> stamps_;
};

// All ranks at once, however long their checks took.
void LowLatency::dispatch(int set) {
  calls_.select(set);
  tools_.start_line.align(check_allowance);
  calls_.run(Part::dispatch);
  calls_.wait();
}

void LowLatency::combine() {
  tools_.start_line.align(check_allowance);
  calls_.run(Part::combine);
  calls_.wait();
}

void LowLatency::iterate() {
  dispatch(0);
  combine();
  calls_.release();
}

Observation LowLatency::observe() {
  int const calls = std::min(case_.latency().iterations, most_observed);
  calls_.count_waits();
  for (int i = 0; i < calls; ++i) {
    dispatch(i % case_.sets());
    combine();
    calls_.release();
  }
  return {.calls = calls,
          .dispatch_wait_us = calls_.waited_us(Part::dispatch),
          .combine_wait_us = calls_.waited_us(Part::combine)};
}

// Of x only the rows that arrived: there is room for many more.
Tensor rows_on_host(TensorMemory const& memory, Tensor const& x, Tensor const& counts) {
  if (!memory.on_gpu()) return x;
  Tensor host = TensorMemory(false).allocate(x.dtype(), {x.size(0), x.size(1), x.size(2)});
  std::size_t const row_bytes = static_cast<std::size_t>(x.size(2)) * size_of(x.dtype());
  for (std::int64_t part = 0; part < x.size(0); ++part) {
    auto const first = static_cast<std::size_t>(part * x.size(1)) * row_bytes;
    auto const count = std::clamp<std::int64_t>(counts.data<std::int32_t>()[part], 0, x.size(1));
    memory.copy(host.data<std::byte>() + first, x.data<std::byte>() + first,
                static_cast<std::size_t>(count) * row_bytes);
  }
  return host;
}

LowLatencyReceived on_host(TensorMemory const& memory, LowLatencyReceived received) {
  for (auto const part :
       {&LowLatencyReceived::scales, &LowLatencyReceived::counts, &LowLatencyReceived::ranges,
        &LowLatencyReceived::source_token, &LowLatencyReceived::topk_idx, &LowLatencyReceived::topk_weights})
    received.*part = memory.fetch(received.*part);
  received.x = rows_on_host(memory, received.x, received.counts);
  return received;
}

// The frame of each call was used before, and what it left would be seen.
std::optional<std::string> LowLatency::find_mismatch(int set) {
  TensorMemory const& memory = calls_.memory();
  oracle::SeededData const data(case_.problem(set), case_.routing(set));
  oracle::LowLatencyChecker const checker(case_.terms(set), case_.slot_terms(), data, tools_.communicator.rank());
  memory.poison(calls_.out());
  dispatch(set);
  LowLatencyReceived received = on_host(memory, calls_.received());
  auto fault = oracle::mismatch_of([&] { checker.check_received(received); });
  if (!fault) {
    checker.for_each_output(
        received, [&, to = calls_.outputs()](std::int64_t slot, std::span<std::byte const> row) {
          memory.copy(to.data<std::byte>() + static_cast<std::size_t>(slot) * row.size(), row.data(), row.size());
        });
  }
  received = {};  // which holds the result
  combine();
  Tensor const out = memory.fetch(calls_.out());
  if (!fault) fault = oracle::mismatch_of([&] { checker.check_combined(out); });
  calls_.release();
  return fault;
}

// All sets, and as many as there are frames, at least; also after a mismatch, which the other ranks do not know of.
std::optional<std::string> LowLatency::find_mismatch() {
  std::optional<std::string> first;
  for (int i = 0; i < std::max(case_.sets(), 2); ++i) {
    auto fault = find_mismatch(i % case_.sets());
    if (!first) first = std::move(fault);
  }
  return first;
}

// Memory of the outputs is there before it is timed: in each frame, for each set.
void LowLatency::touch_outputs() {
  int const frames = calls_.buffer().options().max_results;
  for (int i = 0; i < frames * case_.sets(); ++i) {
    dispatch(i / frames);
    Tensor const counts = calls_.memory().fetch(calls_.received().counts);
    Tensor const outputs = calls_.outputs();
    std::size_t const row_bytes = static_cast<std::size_t>(outputs.size(2)) * 2;
    for (std::int64_t part = 0; part < outputs.size(0); ++part) {
      std::byte* const first =
          outputs.data<std::byte>() + static_cast<std::size_t>(part * outputs.size(1)) * row_bytes;
      calls_.memory().fill(first, 0x3c, static_cast<std::size_t>(counts.data<std::int32_t>()[part]) * row_bytes);
    }
    combine();
    calls_.release();
  }
}

void LowLatency::time(Clock clock, Measure const& measure, Samples& samples) {
  LatencyOptions const& options = case_.latency();
  tools_.start_line.align(check_allowance);
  for (int i = -options.warmup; i < options.iterations; ++i) {
    calls_.select((i + options.warmup) % case_.sets());
    for (auto const sequence : sequences_of(case_.options())) {
      for (Part const part : sequence) {
        double const us = measure(part);
        if (i >= 0) samples.of(clock, part).push_back(us);
      }
      calls_.release();
    }
  }
}

void LowLatency::by_host(Samples& samples) {
  auto const measure = [this, &samples](Part part) {
    WireCount const before = wire_count(calls_.buffer());
    std::int64_t const begin = tools_.start_line.align();
    calls_.run(part);
    calls_.wait();
    double const us = static_cast<double>(monotonic_ns() - begin) / 1e3;
    note_wire(part, before, wire_count(calls_.buffer()), samples);
    return us;
  };
  time(Clock::host, measure, samples);
}

void LowLatency::by_device(Samples& samples) {
  auto const timer = require_gpu_tools().make_timer();
  auto const measure = [&](Part part) {
    tools_.start_line.align();  // so that no rank's hosts are late at the gate
    std::uintptr_t const stream = calls_.stream().handle();
    gate(calls_.buffer(), stream);
    timer->begin(stream);
    calls_.run(part);
    timer->end(stream);
    calls_.wait();
    return timer->microseconds();
  };
  time(Clock::device, measure, samples);
}

void LowLatency::queue_stamped(Part part) {
  std::uintptr_t const stream = calls_.stream().handle();
  gate(calls_.buffer(), stream);
  stamps_->write(0, stream);
  calls_.run(part);
  stamps_->write(1, stream);
}

// A graph for each part.
LowLatency::Layer LowLatency::capture(std::span<Part const> sequence) {
  Layer layer;
  for (Part const part : sequence)
    layer.push_back(require_gpu_tools().capture(calls_.stream(), [this, part] { queue_stamped(part); }));
  calls_.release();
  return layer;
}

void LowLatency::replay(std::span<Part const> sequence, Samples& samples) {
  LatencyOptions const& options = case_.latency();
  calls_.stage(0);
  std::vector<Layer> layers;
  for (int layer = 0; layer < graph_layers; ++layer) layers.push_back(capture(sequence));
  tools_.start_line.align(check_allowance);
  for (int i = -options.warmup; i < options.iterations; ++i) {
    calls_.stage((i + options.warmup) % case_.sets());
    Layer const& layer = layers[static_cast<std::size_t>(i + options.warmup) % layers.size()];
    for (std::size_t at = 0; at < sequence.size(); ++at) {
      tools_.start_line.align();
      layer[at]->replay();
      calls_.stream().wait();
      if (i >= 0) samples.of(Clock::graph, sequence[at]).push_back(stamps_->microseconds(0, 1));
    }
    calls_.wait();
  }
}

// The stages are inputs that were written just before, as a layer's are.
void LowLatency::by_graphs(Samples& samples) {
  stamps_ = require_gpu_tools().make_stamps(2);
  for (auto const sequence : sequences) replay(sequence, samples);
}

void LowLatency::measure(Samples& samples) {
  touch_outputs();
  by_host(samples);
  if (calls_.on_gpu()) by_device(samples);
  if (calls_.on_gpu() && case_.latency().graphs) by_graphs(samples);
}

}  // namespace

std::unique_ptr<Workload> make_low_latency(Case const& of, RankTools& tools) {
  return std::make_unique<LowLatency>(of, tools);
}

}  // namespace switchyard::cli
