// The C++ side of overhead.py times the same calls in the same way, and prints a JSON object of microseconds a
// call. Usage: overhead [ROUNDS [CALLS [cpu|cuda]]]
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "overhead_place.hpp"

namespace {

using overhead::Place;
using switchyard::DType;

constexpr int tokens = 4;
constexpr int hidden = 16;
constexpr int experts = 4;
constexpr int top_k = 2;

// Returns the median over rounds of the mean of a round. The first round warms up. Times contain only the calls.
class Timer {
 public:
  Timer(Place const& place, int rounds, int calls) : place_(place), rounds_(rounds), calls_(calls) {}

  double operator()(std::function<void()> const& call) const {
    std::vector<double> times;
    for (int round = 0; round <= rounds_; ++round) times.push_back(mean(call));
    std::sort(times.begin() + 1, times.end());
    return times[1 + static_cast<std::size_t>(rounds_) / 2];
  }

 private:
  using Clock = std::chrono::steady_clock;

  double mean(std::function<void()> const& call) const {
    Clock::duration total{};
    for (int i = 0; i < calls_; ++i) {
      place_.settle();
      auto const begin = Clock::now();
      call();
      total += Clock::now() - begin;
    }
    return std::chrono::duration<double, std::micro>(total).count() / calls_;
  }

  Place const& place_;
  int rounds_;
  int calls_;
};

struct Inputs {
  explicit Inputs(Place& place)
      : x(place.put(std::vector<std::uint16_t>(tokens * hidden), DType::bf16, {tokens, hidden})),
        topk_idx(place.put(std::vector<std::int64_t>{0, 1, 2, 3, 0, 1, 2, 3}, DType::i64, {tokens, top_k})),
        topk_weights(place.put(std::vector<float>(tokens * top_k), DType::f32, {tokens, top_k})),
        fp8(place.put(std::vector<std::uint8_t>(tokens * hidden), DType::f8e4m3, {tokens, hidden})),
        scales(place.put(std::vector<float>(tokens), DType::f32, {tokens, 1})),
        out(place.put(std::vector<std::uint16_t>(tokens * hidden), DType::bf16, {tokens, hidden})) {}

  switchyard::TensorView x;
  switchyard::TensorView topk_idx;
  switchyard::TensorView topk_weights;
  switchyard::TensorView fp8;
  switchyard::TensorView scales;
  switchyard::TensorView out;
};

void print(char const* name, double microseconds, char const* before = ", ") {
  std::printf("%s\"%s\": %.3f", before, name, microseconds);
}

void throughput(switchyard::Communicator const& world, switchyard::EngineKind engine, Inputs const& inputs,
                Timer const& time) {
  switchyard::Buffer buffer(world, {.max_tokens = tokens,
                                    .hidden = hidden,
                                    .num_experts = experts,
                                    .top_k = top_k,
                                    .engine = engine,
                                    .errors_at_once = false});
  switchyard::DispatchArgs args;
  args.x = inputs.x;
  switchyard::DispatchArgs cached = args;
  args.topk_idx = inputs.topk_idx;
  args.topk_weights = inputs.topk_weights;
  switchyard::Dispatched const received = buffer.dispatch(args);
  cached.handle = received.handle;
  switchyard::CombineArgs back;
  back.x = received.x;
  back.handle = received.handle;
  back.topk_weights = received.topk_weights;
  print("layout", time([&] { static_cast<void>(buffer.get_layout(args.topk_idx)); }), "{");
  print("dispatch", time([&] { buffer.dispatch(args); }));
  print("cached dispatch", time([&] { buffer.dispatch(cached); }));
  print("combine", time([&] { buffer.combine(back); }));
  switchyard::DispatchArgs expanded = args;
  expanded.layout = switchyard::OutputLayout::expanded;
  print("expanded dispatch", time([&] { buffer.dispatch(expanded); }));
  args.x = inputs.fp8;
  args.scales = inputs.scales;
  print("FP8 dispatch", time([&] { buffer.dispatch(args); }));
}

// Times a dispatch together with its combine, since a result is combined once.
void low_latency(switchyard::Communicator const& world, switchyard::EngineKind engine, Inputs const& inputs,
                 Timer const& time) {
  switchyard::LowLatencyBuffer buffer(world, {.max_tokens = tokens,
                                              .hidden = hidden,
                                              .num_experts = experts,
                                              .top_k = top_k,
                                              .max_results = 4,
                                              .engine = engine});
  switchyard::LowLatencyDispatchArgs args;
  args.x = inputs.x;
  args.topk_idx = inputs.topk_idx;
  switchyard::LowLatencyCombineArgs back;
  back.topk_weights = inputs.topk_weights;
  back.out = inputs.out;
  print("low latency", time([&] {
          auto const received = buffer.dispatch(args);
          back.x = received.x;
          back.handle = received.handle;
          buffer.combine(back);
        }));
  print("low latency, hooks", time([&] {
          switchyard::ReceiveHook receive;
          auto const received = buffer.send_dispatch(args, receive);
          receive(0);
          back.x = received.x;
          back.handle = received.handle;
          buffer.send_combine(back, receive);
          receive(0);
        }));
}

}  // namespace

int main(int argc, char** argv) try {
  std::string const name = argc > 3 ? argv[3] : "cpu";
  auto const engine = name == "cuda" ? switchyard::EngineKind::cuda : switchyard::EngineKind::cpu;
  Place place(engine);
  Timer const time(place, argc > 1 ? std::atoi(argv[1]) : 30, argc > 2 ? std::atoi(argv[2]) : 300);
  auto const world = switchyard::Communicator::join(switchyard::Communicator::in_process_store(), 0, 1);
  Inputs const inputs(place);
  throughput(world, engine, inputs, time);
  low_latency(world, engine, inputs, time);
  std::printf("}\n");
} catch (std::exception const& error) {
  std::fprintf(stderr, "overhead: %s\n", error.what());
  return 1;
}
