// The producers' end of a CommandRing.
#pragma once

#include "engine/cuda/host/command_ring.hpp"
#include "engine/cuda/ptx/memory_order.cuh"

namespace switchyard::cuda {

// Waits until the place of the command with this number is free. Returns false when `gives_up()` says so, which is
// asked now and then.
template <typename GivesUp>
__device__ inline bool wait_for_place(CommandRingView const& ring, std::uint64_t number, GivesUp const& gives_up) {
  constexpr unsigned polls_between_questions = 256;
  // Pairs with the max_release() below. It is in the GPU's own memory, and saves the way to the host's.
  if (number - ptx::load_acquire(ring.seen_taken) < ring.places) return true;
  for (unsigned poll = 1;; ++poll) {
    std::uint64_t const taken =
        ptx::load_acquire(ring.taken);  // pairs with the release store in CommandRing::publish()
    if (number - taken < ring.places) {
      ptx::max_release(ring.seen_taken, taken);
      return true;
    }
    if (poll % polls_between_questions == 0 && gives_up()) return false;
  }
}

// One thread calls this for what it, and those that met it at a barrier before, have written: the host finds it
// there when it takes the command. `command` is most_command at most. Returns
// false when the ring stayed full until `gives_up()`; the ring is of no more use then, since a place stays empty,
// and whoever owns both ends makes a new one.
template <typename GivesUp>
__device__ inline bool push(CommandRingView const& ring, std::uint64_t command, GivesUp const& gives_up) {
  std::uint64_t const number = atomicAdd(reinterpret_cast<unsigned long long*>(ring.next), 1ULL);
  if (!wait_for_place(ring, number, gives_up)) return false;
  // Pairs with the acquire load in CommandRing::next().
  ptx::store_release(&ring.words[number % ring.places], word_of(command, number, ring.places));
  return true;
}

}  // namespace switchyard::cuda
