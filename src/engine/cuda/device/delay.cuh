// Tests hold ranks up before and after a signal to a peer, by random times, as control/signal_delay.hpp does on
// CPUs.
#pragma once

#include "engine/cuda/host/args.hpp"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

// Out of line: a kernel that runs for the first time in a while waits for its instructions, and a call of few
// tokens for little else.
static __device__ __noinline__ void hold_up(std::uint64_t seed, std::uint32_t max_us) {
  std::uint64_t const begin = ptx::global_timer();
  std::uint64_t hash = (seed ^ begin) * 0x9e3779b97f4a7c15U;
  hash ^= hash >> 29U;
  std::uint64_t const wait_ns = (hash * 0xbf58476d1ce4e5b9U >> 32U) % (max_us * std::uint64_t{1000} + 1);
  while (ptx::global_timer() - begin < wait_ns) {
  }
}

// `salt`: threads with different ones wait for different times.
__device__ inline void delay_signal(Waiting const& waiting, std::uint64_t salt) {
  if (waiting.delays.seed != 0) [[unlikely]]
    hold_up(waiting.delays.seed ^ salt, waiting.delays.max_us);
}

}  // namespace switchyard::cuda
