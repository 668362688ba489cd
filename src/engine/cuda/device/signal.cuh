// Signals to peers: a word that is stored with release order. Tests hold ranks up before and after each, by random
// times, as control/signal_delay.hpp does on CPUs.
#pragma once

#include "control/signal_delay.hpp"
#include "engine/cuda/host/args.hpp"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

using Signal = void (*)(std::uint64_t* word, std::uint64_t value);

// Half of the signals go at once, since what is to be found is one that is late among others that are not.
__device__ inline std::uint64_t random_delay_ns(SignalDelays const& delays, std::uint64_t salt) {
  std::uint64_t hash = (delays.seed ^ salt) * 0x9e3779b97f4a7c15U;
  hash = (hash ^ hash >> 29U) * 0xbf58476d1ce4e5b9U;
  return hash >> 63U != 0 ? 0 : (hash >> 32U) % (delays.max_us * std::uint64_t{1000} + 1);
}

// Each thread signals at its own time, in the middle of its loop: threads of a warp that only waited before they
// signal would meet again there, and signal all peers at once. (nvdisasm shows the store within the loop.) The
// word's address is another one for each rank, peer and block. Out of line, because a kernel that has not run for a
// while waits for its instructions, and a call of few tokens for little else.
template <Signal signal>
static __device__ __noinline__ void signal_late(SignalDelays delays, std::uint64_t* word, std::uint64_t value) {
  std::uint64_t const begin = ptx::global_timer();
  std::uint64_t const salt = begin ^ reinterpret_cast<std::uintptr_t>(word);
  std::uint64_t const before = random_delay_ns(delays, salt);
  std::uint64_t const after = random_delay_ns(delays, ~salt);
  bool signalled = false;
  for (std::uint64_t passed = 0; !signalled || passed < before + after; passed = ptx::global_timer() - begin) {
    if (signalled || passed < before) continue;
    signal(word, value);
    signalled = true;
  }
}

// Which load it pairs with is said where it is called.
template <Signal signal = ptx::store_release>
__device__ inline void signal_peer(Waiting const& waiting, std::uint64_t* word, std::uint64_t value) {
  if (waiting.delays.seed != 0) [[unlikely]]
    signal_late<signal>(waiting.delays, word, value);
  else
    signal(word, value);
}

}  // namespace switchyard::cuda
