// Blocks of one kernel that count themselves.
#pragma once

#include "engine/cuda/device/tell.cuh"
#include "engine/cuda/device/wait.cuh"

namespace switchyard::cuda {

// Who may read what a block has written: this rank's GPU only, or peers.
enum class Readers { own, peers };

// Called by every thread of every block when the block's work is done. True in all threads of the block that comes
// last, which then sees what all blocks have written (each block's release in the addition, the last one's
// acquire).
template <Readers readers>
__device__ inline bool is_last_block(std::uint32_t* counter) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    // The writes of this block to peers come before what the last block publishes.
    if constexpr (readers == Readers::peers) ptx::fence_sys();
    last = ptx::add_acq_rel(counter, 1) + 1 == gridDim.x;
    if (last) *counter = 0;  // for the next kernel in the stream
  }
  __syncthreads();
  return last;
}

// By all threads of a block: the same answer in all of them.
__device__ inline bool any_thread(bool yes) {
  return __syncthreads_or(yes ? 1 : 0) != 0;
}

// By all threads of a block, before it does anything: has the buffer failed? The same answer in all of them.
__device__ inline bool block_has_failed(Peers const& peers) {
  return any_thread(threadIdx.x == 0 && has_failed(peers));
}

// A block that does nothing in this call: one that began when another had already found that it fails. All count,
// so that the epoch moves on as it does on the peers.
__device__ inline void sit_out(Peers const& peers, std::uint64_t epoch) {
  DeviceState* const state = state_of(peers);
  if (is_last_block<Readers::own>(&state->blocks_done) && threadIdx.x == 0) state->epoch = epoch;
}

// Threads 0..num_ranks-1 of one block raise a flag at every peer.
__device__ inline void raise_at_peers(Peers const& peers, std::size_t flags, std::uint64_t epoch) {
  if (static_cast<int>(threadIdx.x) < peers.num_ranks) {
    auto* const flag = control_part<DeviceFlag>(peers, static_cast<int>(threadIdx.x), flags, peers.rank);
    ptx::store_release(&flag->epoch, epoch);  // pairs with the load_acquire() in wait_for_peers()
  }
}

// Threads 0..num_ranks-1 of one block wait for the flags of all peers; false in all threads if one failed.
__device__ inline bool wait_for_peers(Peers const& peers, Waiting const& waiting, std::size_t flags,
                                      std::uint64_t epoch, Phase phase) {
  bool failed = false;
  if (static_cast<int>(threadIdx.x) < peers.num_ranks) {
    int const peer = static_cast<int>(threadIdx.x);
    auto const* const flag = control_part<DeviceFlag>(peers, peers.rank, flags, peer);
    failed = !wait_flag(peers, waiting, &flag->epoch, {.phase = phase, .peer = peer, .epoch = epoch});
  }
  return !any_thread(failed);
}

}  // namespace switchyard::cuda
