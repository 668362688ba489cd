// The kernels that give frames back outside of any call, and that mask peers.
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/low_latency/kernels/credit.cuh"
#include "engine/cuda/low_latency/kernels/waiting.cuh"
#include "engine/cuda/low_latency/launch.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int credit_threads = 128;

__global__ void slot_release_kernel(__grid_constant__ SlotArgs const args) {
  ptx::wait_for_kernel_before();
  give_frames_back(args);
}

__global__ void slot_mask_kernel(__grid_constant__ SlotMaskArgs const args) {
  ptx::wait_for_kernel_before();
  if (threadIdx.x != 0) return;
  if (args.masked) return mask_peer(args, args.peer);
  atomicExch(masked_word(args, args.peer), 0U);  // pairs with the load_relaxed() in is_masked()
  for (int frame = 0; frame < args.frames; ++frame) {
    // Pairs with the load_acquire() in wait_word() of the peer.
    signal_peer(args.waiting, &frame_flag(args, args.at.credit, frame, args.peer, args.peers.rank)->epoch,
                frame_state(args, frame)->given);
  }
}

}  // namespace

cudaError_t launch_slot_release(SlotArgs const& args, cudaStream_t stream) {
  return launch_next(slot_release_kernel, args, {1, credit_threads, 0}, stream);
}

cudaError_t launch_slot_mask(SlotMaskArgs const& args, cudaStream_t stream) {
  return launch_next(slot_mask_kernel, args, {1, credit_threads, 0}, stream);
}

cudaError_t load_slot_credit() {
  cudaError_t const loaded = load_kernel(slot_release_kernel);
  return loaded != cudaSuccess ? loaded : load_kernel(slot_mask_kernel);
}

}  // namespace switchyard::cuda
