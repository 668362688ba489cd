// Low-latency mode: giving frames back to their sources, which may then send into them again.
#pragma once

#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/low_latency/kernels/sources.cuh"

namespace switchyard::cuda {

// All threads of a block call this. From here on all that lies in the bay that the credit names may be overwritten.
static __device__ __noinline__ void give_frame_back(SlotArgs const& args, int frame, std::uint64_t credit) {
  __shared__ bool first;
  FrameState* const state = frame_state(args, frame);
  int const peer = static_cast<int>(threadIdx.x);
  bool const masked = peer < args.peers.num_ranks && is_masked(args, peer);
  __syncthreads();
  // Two kernels may do this at the same time; the exchange lets one of them go on.
  if (threadIdx.x == 0) first = atomicExch(reinterpret_cast<unsigned long long*>(&state->given), credit) != credit;
  __syncthreads();
  if (!first) return;
  std::uint32_t* const claims = claims_of(args, args.peers.rank, frame);
  for (int i = static_cast<int>(threadIdx.x); i < args.experts.max_count(); i += static_cast<int>(blockDim.x))
    claims[i] = 0;
  __syncthreads();
  // The second load is for a peer that was masked above and is not any more: nobody else would give it its credit.
  if (peer >= args.peers.num_ranks || (masked && is_masked(args, peer))) return;
  // Pairs with the load_acquire() in wait_word() of the peer's next dispatch into this frame: after it the peer
  // adds to claims that are zero, and writes where nobody reads any more. The greater value stays, because the peer
  // may have been masked meanwhile, and its credit revoked.
  auto* const word = &frame_flag(args, args.at.credit, frame, peer, args.peers.rank)->epoch;
  signal_peer<ptx::max_release>(args.waiting, word, credit);
}

// All threads of a block call this for a frame that was never received. Returns true when no source writes into it
// any more, and false when sources are missing, which fails the buffer.
static __device__ __noinline__ bool wait_for_writers(SlotArgs const& args, int frame, std::uint64_t epoch) {
  return !wait_for_sources(args, frame, word_of_any_call(epoch), false).failed;
}

// All threads of a block call this. `state` is that of the frame, as all of them have read it; `bay` is for the
// next epoch.
__device__ inline void give_back_received(SlotArgs const& args, int frame, FrameState const& state, int bay) {
  if (epoch_of_credit(state.given) == state.epoch) return;
  if (state.received != state.epoch && !wait_for_writers(args, frame, state.epoch)) return;
  give_frame_back(args, frame, credit_word(state.epoch, frame, bay));
}

// Has the host released the result that is in the frame?
__device__ inline bool is_released(SlotArgs const& args, int frame, FrameState const& state) {
  return ((state.captured != 0 ? args.released_captured : args.released) >> frame & 1) != 0;
}

// One block does this before anything else in a send half, which waits for the credits of its own rank, too. The
// host has seen that nobody holds the frame's result, or has given the frame another bay than the result has. If
// the result was of a graph, a call outside of graphs takes the frame over, and so does a replay. A replay waits
// while a result of a call outside of graphs is held in its own bay.
__device__ inline void take_frame_over(SlotArgs const& args, FrameState const& state) {
  bool const elsewhere = static_cast<int>(state.bay) != args.bay;
  if (is_released(args, args.frame, state) || state.captured != 0 || !args.captured || elsewhere)
    give_back_received(args, args.frame, state, args.bay);
}

// One block does this when there is time. It gives back all frames that the host has released, except the frame of
// a call that sends into it. They keep their bays: only a dispatch brings its frame another one.
__device__ inline void give_frames_back(SlotArgs const& args) {
  __shared__ FrameState states[max_frames];
  std::uint32_t const due = (args.released | args.released_captured) & (args.send ? ~(1U << args.frame) : ~0U);
  if (due == 0) return;
  // The loads of all states are under way at the same time.
  int const own = static_cast<int>(threadIdx.x);
  if (own < args.frames) states[own] = *frame_state(args, own);
  __syncthreads();
#pragma unroll 1
  for (std::uint32_t left = due; left != 0; left &= left - 1) {
    int const frame = __ffs(static_cast<int>(left)) - 1;
    FrameState const& state = states[frame];
    if (is_released(args, frame, state)) give_back_received(args, frame, state, static_cast<int>(state.bay));
  }
}

}  // namespace switchyard::cuda
