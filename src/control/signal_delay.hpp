// For tests: pauses of random length before and after each signal to a peer, so that ranks meet in orders that they
// seldom meet in otherwise. The setting is the whole process's, and only tests arm it.
#pragma once

#include <atomic>
#include <cstdint>

namespace switchyard {

struct SignalDelays {
  std::uint64_t seed = 0;  // 0: none
  std::uint32_t max_us = 0;
};

// Applies to the threads of this process, and to kernels that are launched from now on. A seed of 0 ends the
// delays.
void set_signal_delays(std::uint64_t seed, std::uint32_t max_us) noexcept;
[[nodiscard]] SignalDelays signal_delays() noexcept;

namespace detail {
extern std::atomic<std::uint64_t> signal_delay_seed;
void pause_signal() noexcept;
}  // namespace detail

// To be called before and after a signal. Relaxed: the test arms the delays before its ranks start.
inline void delay_signal() noexcept {
  if (detail::signal_delay_seed.load(std::memory_order_relaxed) != 0) [[unlikely]]
    detail::pause_signal();
}

}  // namespace switchyard
