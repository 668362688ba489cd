#include "cli/bench/clocks.hpp"

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "api/engine_table.hpp"
#include "base/deadline.hpp"
#include "switchyard/measure.hpp"

namespace switchyard::cli {

namespace {

// Parts that follow one another with one result, and leave none behind.
constexpr std::array alone{Part::nothing};
constexpr std::array whole{Part::dispatch, Part::combine};
constexpr std::array halves{Part::dispatch_send, Part::dispatch_receive, Part::combine_send, Part::combine_receive};
constexpr std::array together{Part::both};
constexpr std::array<std::span<Part const>, 4> sequences{alone, whole, halves, together};

// Calls of a model's layers, which use the buffer's frames in turn: of a frame that is used again, the result was
// released layers ago.
constexpr int graph_layers = 8;

class LatencyTimes {
 public:
  LatencyTimes(LatencyCase const& of, LatencyCalls& calls, StartLine& start_line)
      : case_(of), calls_(calls), start_line_(start_line) {}

  void by_host(LatencySamples& samples);
  void by_device(LatencySamples& samples);
  void by_graphs(LatencySamples& samples);

 private:
  // Microseconds of a part.
  using Measure = std::function<double(Part)>;
  void iterate(Clock clock, Measure const& measure, LatencySamples& samples);
  void queue_stamped(Part part);
  using Layer = std::vector<std::unique_ptr<GpuGraph>>;
  Layer capture(std::span<Part const> sequence);
  void replay(std::span<Part const> sequence, LatencySamples& samples);

  LatencyCase const& case_;
  LatencyCalls& calls_;
  StartLine& start_line_;
  std::unique_ptr<GpuStamps> stamps_;
};

void LatencyTimes::iterate(Clock clock, Measure const& measure, LatencySamples& samples) {
  LatencyOptions const& options = case_.latency();
  start_line_.align(check_allowance);
  for (int i = -options.warmup; i < options.iterations; ++i) {
    calls_.select((i + options.warmup) % case_.sets());
    for (auto const sequence : sequences) {
      for (Part const part : sequence) {
        double const us = measure(part);
        if (i >= 0) samples.of(clock, part).push_back(us);
      }
      calls_.release();
    }
  }
}

void LatencyTimes::by_host(LatencySamples& samples) {
  auto const measure = [this](Part part) {
    std::int64_t const begin = start_line_.align();
    calls_.run(part);
    calls_.wait();
    return static_cast<double>(monotonic_ns() - begin) / 1e3;
  };
  iterate(Clock::host, measure, samples);
}

void LatencyTimes::by_device(LatencySamples& samples) {
  auto const timer = require_gpu_tools().make_timer();
  auto const measure = [&](Part part) {
    start_line_.align();  // so that no rank's hosts are late at the gate
    std::uintptr_t const stream = calls_.stream().handle();
    gate(calls_.buffer(), stream);
    timer->begin(stream);
    calls_.run(part);
    timer->end(stream);
    calls_.wait();
    return timer->microseconds();
  };
  iterate(Clock::device, measure, samples);
}

void LatencyTimes::queue_stamped(Part part) {
  std::uintptr_t const stream = calls_.stream().handle();
  gate(calls_.buffer(), stream);
  stamps_->write(0, stream);
  calls_.run(part);
  stamps_->write(1, stream);
}

// A graph for each part.
LatencyTimes::Layer LatencyTimes::capture(std::span<Part const> sequence) {
  Layer layer;
  for (Part const part : sequence)
    layer.push_back(require_gpu_tools().capture(calls_.stream(), [this, part] { queue_stamped(part); }));
  calls_.release();
  return layer;
}

void LatencyTimes::replay(std::span<Part const> sequence, LatencySamples& samples) {
  LatencyOptions const& options = case_.latency();
  calls_.stage(0);
  std::vector<Layer> layers;
  for (int layer = 0; layer < graph_layers; ++layer) layers.push_back(capture(sequence));
  start_line_.align(check_allowance);
  for (int i = -options.warmup; i < options.iterations; ++i) {
    calls_.stage((i + options.warmup) % case_.sets());
    Layer const& layer = layers[static_cast<std::size_t>(i + options.warmup) % layers.size()];
    for (std::size_t at = 0; at < sequence.size(); ++at) {
      start_line_.align();
      layer[at]->replay();
      calls_.stream().wait();
      if (i >= 0) samples.of(Clock::graph, sequence[at]).push_back(stamps_->microseconds(0, 1));
    }
    calls_.wait();
  }
}

// The stages are inputs that were written just before, as a layer's are.
void LatencyTimes::by_graphs(LatencySamples& samples) {
  stamps_ = require_gpu_tools().make_stamps(2);
  for (auto const sequence : sequences) replay(sequence, samples);
}

}  // namespace

LatencySamples measure_latency(LatencyCase const& of, LatencyCalls& calls, StartLine& start_line) {
  LatencySamples samples;
  LatencyTimes times(of, calls, start_line);
  times.by_host(samples);
  if (calls.on_gpu()) times.by_device(samples);
  if (calls.on_gpu() && of.latency().graphs) times.by_graphs(samples);
  return samples;
}

}  // namespace switchyard::cli
