// The C++ side of overhead.py: the same calls, timed in the same way. Prints a JSON object of microseconds a call.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "switchyard/switchyard.hpp"

namespace {

using switchyard::DType;

constexpr int tokens = 4;
constexpr int hidden = 16;
constexpr int experts = 4;
constexpr int top_k = 2;

struct Repeats {
  int rounds;
  int calls;
};

// The median over rounds of the mean of a round; the first round warms up.
double microseconds(std::function<void()> const& call, Repeats repeats) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int round = 0; round <= repeats.rounds; ++round) {
    auto const begin = Clock::now();
    for (int i = 0; i < repeats.calls; ++i) call();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / repeats.calls);
  }
  std::sort(times.begin() + 1, times.end());
  return times[1 + static_cast<std::size_t>(repeats.rounds) / 2];
}

}  // namespace

int main(int argc, char** argv) {
  Repeats const repeats{argc > 1 ? std::atoi(argv[1]) : 30, argc > 2 ? std::atoi(argv[2]) : 300};
  auto const world = switchyard::Communicator::join(switchyard::Communicator::in_process_store(), 0, 1);
  switchyard::Buffer buffer(world, {.max_tokens = tokens,
                                    .hidden = hidden,
                                    .num_experts = experts,
                                    .top_k = top_k,
                                    .engine = switchyard::EngineKind::cpu});
  std::array<std::uint16_t, tokens * hidden> x{};
  std::array<std::int64_t, tokens * top_k> ids{0, 1, 2, 3, 0, 1, 2, 3};
  std::array<float, tokens * top_k> weights{};
  switchyard::DispatchArgs args;
  args.x = {x.data(), DType::bf16, {tokens, hidden}};
  switchyard::DispatchArgs cached = args;
  args.topk_idx = {ids.data(), DType::i64, {tokens, top_k}};
  args.topk_weights = {weights.data(), DType::f32, {tokens, top_k}};
  switchyard::Dispatched const received = buffer.dispatch(args);
  cached.handle = received.handle;
  switchyard::CombineArgs back;
  back.x = received.x;
  back.handle = received.handle;
  back.topk_weights = received.topk_weights;
  std::printf(R"({"layout": %.3f, "dispatch": %.3f, "cached dispatch": %.3f, "combine": %.3f})",
              microseconds([&] { static_cast<void>(buffer.get_layout(args.topk_idx)); }, repeats),
              microseconds([&] { buffer.dispatch(args); }, repeats),
              microseconds([&] { buffer.dispatch(cached); }, repeats),
              microseconds([&] { buffer.combine(back); }, repeats));
  std::printf("\n");
}
