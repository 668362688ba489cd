#include "control/signal_delay.hpp"

#include <chrono>
#include <thread>

namespace switchyard {
namespace {

std::atomic<std::uint32_t> most_us{0};

// splitmix64, with a state of its own for each thread.
std::uint64_t next_random(std::uint64_t seed) noexcept {
  // Relaxed: it only gives each thread a different beginning.
  static std::atomic<std::uint64_t> threads{0};
  thread_local std::uint64_t state = 0x9e3779b97f4a7c15 * threads.fetch_add(1, std::memory_order_relaxed);
  std::uint64_t z = (state += 0x9e3779b97f4a7c15) ^ seed;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111eb;
  return z ^ (z >> 31U);
}

}  // namespace

std::atomic<std::uint64_t> detail::signal_delay_seed{0};

void set_signal_delays(std::uint64_t seed, std::uint32_t max_us) noexcept {
  most_us.store(max_us, std::memory_order_relaxed);
  detail::signal_delay_seed.store(seed, std::memory_order_relaxed);
}

SignalDelays signal_delays() noexcept {
  return {detail::signal_delay_seed.load(std::memory_order_relaxed), most_us.load(std::memory_order_relaxed)};
}

// Half of the signals go at once, since what is to be found is one that is late among others that are not.
void detail::pause_signal() noexcept {
  auto const [seed, max_us] = signal_delays();
  std::uint64_t const random = next_random(seed);
  if ((random & 1U) != 0 || max_us == 0) return;
  std::this_thread::sleep_for(std::chrono::microseconds{(random >> 1U) % (std::uint64_t{max_us} + 1)});
}

}  // namespace switchyard
