// Low-latency dispatch: the send half, the receive half, or both.
#include "engine/cuda/kernels/launch_next.cuh"
#include "engine/cuda/phases/slot_cast.cuh"
#include "engine/cuda/phases/slot_receive.cuh"
#include "engine/cuda/slot_launch.hpp"

namespace switchyard::cuda {

namespace {

struct SendMemory {
  int stream[slot_threads];
  int row[slot_threads];
  std::int16_t rank[slot_threads];
};

__device__ void send_wave(SlotDispatchArgs const& args, Wave const& wave) {
  if (args.cast != SendCast::none) {
    send_cast(args, wave);
    return;
  }
  send_rows(args, wave, args.x, args.at.x);
  send_rows(args, wave, args.scale_rows, args.at.scales);
  send_given_scales(args, wave);
}

// False in all threads when the call has failed.
__device__ bool send_tokens(SlotDispatchArgs const& args, std::uint64_t epoch, StreamCounts const& counts) {
  __shared__ SendMemory memory;
  TokenRange const own = own_tokens(args);
  Attendance const credits = call_roll(args, {.flags = args.at.credit,
                                              .epoch = epoch - 1,
                                              .phase = Phase::slots_credit,
                                              .check = false,
                                              .account = false});
  if (credits.failed) return false;
  count_streams(args, own.begin, counts, memory.stream);
  if (!args.rank_major) claim_rows(args, epoch, counts, credits.masked);
  int const at_once = tokens_at_once(args);
  for (std::int64_t first = own.begin; first < own.end; first += at_once) {
    Wave const wave{.stream = memory.stream,
                    .row = memory.row,
                    .rank = memory.rank,
                    .first = first,
                    .tokens = static_cast<int>(min(static_cast<std::int64_t>(at_once), own.end - first))};
    place_wave(args, wave, counts, epoch, credits.masked);
    send_wave(args, wave);
  }
  return true;
}

__global__ void __launch_bounds__(slot_threads, 1)
    slot_dispatch_kernel(__grid_constant__ SlotDispatchArgs const args) {
  extern __shared__ std::uint32_t stream_counts[];
  ptx::wait_for_kernel_before();
  if (block_has_failed(args.peers)) return;
  FrameState* const state = frame_state(args, args.frame);
  std::uint64_t epoch = state->epoch;
  if (blockIdx.x == 0) give_frames_back(args, args.send);
  if (args.send) {
    ++epoch;
    StreamCounts const counts{.total = stream_counts, .before = stream_counts + num_streams(args)};
    bool const sent = send_tokens(args, epoch, counts);
    if (!is_last_block<Readers::peers>(slot_part<std::uint32_t>(args, args.peers.rank, args.at.scratch))) return;
    if (!sent || block_has_failed(args.peers)) return;
    tell_frame(args, args.at.arrived, epoch, args.rank_major ? counts.total : nullptr);
    if (threadIdx.x == 0) {
      state->epoch = epoch;
      state->captured = args.captured ? 1 : 0;
    }
  }
  if (args.receive) receive_rows(args, epoch);
}

}  // namespace

cudaError_t launch_slot_dispatch(SlotDispatchArgs const& args, int blocks, cudaStream_t stream) {
  return launch_next(slot_dispatch_kernel, args, {blocks, slot_threads, slot_dispatch_shared_bytes(args)}, stream);
}

std::size_t slot_dispatch_shared_bytes(SlotDispatchArgs const& args) {
  std::size_t const streams =
      static_cast<std::size_t>(args.rank_major ? args.peers.world : args.experts.num_experts());
  return args.send ? 2 * streams * sizeof(std::uint32_t) : 0;
}

cudaError_t load_slot_dispatch() {
  cudaFuncAttributes attributes;
  cudaError_t const loaded = cudaFuncGetAttributes(&attributes, slot_dispatch_kernel);
  if (loaded != cudaSuccess) return loaded;
  int device = 0;
  int most = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  // A permission only.
  return cudaFuncSetAttribute(slot_dispatch_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              most - static_cast<int>(attributes.sharedSizeBytes));
}

}  // namespace switchyard::cuda
