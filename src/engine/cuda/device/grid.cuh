// What the blocks of a kernel do together, and flags that are raised at all peers.
#pragma once

#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/device/wait.cuh"

namespace switchyard::cuda {

// Who may read what a block has written: this rank's GPU only, or peers as well.
enum class Readers { own, peers };

// Every thread of every block calls this when the block's work is done. It returns true in all threads of the block
// that comes last. That block then sees what all blocks have written: each block releases its writes in the
// addition to the counter, and the last block's addition acquires them.
template <Readers readers>
__device__ inline bool is_last_block(std::uint32_t* counter) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    // The writes of this block to peers come before what the last block publishes.
    if constexpr (readers == Readers::peers) ptx::fence_sys();
    last = ptx::add_acq_rel(counter, 1) + 1 == gridDim.x;  // pairs with the same addition of the other blocks
    if (last) *counter = 0;                                // for the next kernel in the stream
  }
  __syncthreads();
  return last;
}

// All threads of every block call this when the block's work is done, or ptx::block_arrive() when nobody waits for
// what they do next. No barrier of the block follows. It returns true in all lanes of the first warp of the block
// that comes last, which sees what all have written, as in is_last_block().
template <Readers readers>
__device__ inline bool is_last_warp(std::uint32_t* counter) {
  ptx::block_barrier();
  if (threadIdx.x >= 32) return false;
  bool last = false;
  if (threadIdx.x == 0) {
    if constexpr (readers == Readers::peers) ptx::fence_sys();
    last = ptx::add_acq_rel(counter, 1) + 1 == gridDim.x;  // pairs with the same addition of the other blocks
    if (last) *counter = 0;
  }
  // What the first lane has acquired goes on to the others.
  __syncwarp();
  return __shfl_sync(~0U, last ? 1 : 0, 0) != 0;
}

// All threads of a block call this and get the same answer.
__device__ inline bool any_thread(bool yes) {
  return __syncthreads_or(yes ? 1 : 0) != 0;
}

// Has the buffer failed? All threads of a block call this before the block does anything, and get the same answer.
__device__ inline bool block_has_failed(Peers const& peers) {
  return any_thread(threadIdx.x == 0 && has_failed(peers));
}

// For a block that does nothing in this call, because it began when another block had already found that the call
// fails. It counts itself all the same, so that the epoch moves on as it does on the peers.
__device__ inline void skip_call(Peers const& peers, std::uint64_t epoch) {
  DeviceState* const state = state_of(peers);
  if (!is_last_block<Readers::own>(&state->blocks_done) || threadIdx.x != 0) return;
  state->epoch = epoch;
  state->tokens_taken = 0;
}

// Threads 0..num_ranks-1 of one block wait for the flags of all peers. Returns false in all threads if a wait
// failed.
__device__ inline bool wait_for_flags(Peers const& peers, Waiting const& waiting, std::size_t flags,
                                      std::uint64_t epoch, WaitPoint point) {
  bool failed = false;
  if (static_cast<int>(threadIdx.x) < peers.num_ranks) {
    int const peer = static_cast<int>(threadIdx.x);
    auto const* const flag = control_part<DeviceFlag>(peers, peers.rank, flags, peer);
    failed = !wait_flag(peers, waiting, &flag->epoch, {.point = point, .peer = peer, .epoch = epoch});
  }
  return !any_thread(failed);
}

// One warp raises one of the DeviceFlag arrays of DeviceControlLayout at every peer, and waits until every peer has
// done so. Returns false in all lanes if a wait failed. Of more than 32 ranks a lane waits for two, one after the
// other, each with a deadline of its own.
__device__ inline bool meet_peers(Peers const& peers, Waiting const& waiting, std::size_t flags,
                                  std::uint64_t epoch, WaitPoint point) {
  int const lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll 1
  for (int peer = lane; peer < peers.num_ranks; peer += 32) {
    auto* const flag = control_part<DeviceFlag>(peers, peer, flags, peers.rank);
    signal_peer(waiting, &flag->epoch, epoch);  // pairs with the load_acquire() in wait_flag()
  }
  bool failed = false;
#pragma unroll 1
  for (int peer = lane; peer < peers.num_ranks; peer += 32) {
    auto const* const flag = control_part<DeviceFlag>(peers, peers.rank, flags, peer);
    failed |= !wait_flag(peers, waiting, &flag->epoch, {.point = point, .peer = peer, .epoch = epoch});
  }
  return !__any_sync(~0U, failed);
}

}  // namespace switchyard::cuda
