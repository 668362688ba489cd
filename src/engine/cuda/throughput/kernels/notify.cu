// The notify kernel: it does what comes before rows can move, for a dispatch whose host allocates by the counts.
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/throughput/kernels/place.cuh"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

namespace {

extern __shared__ std::byte dynamic_shared[];

__global__ void __launch_bounds__(count_threads) notify_kernel(__grid_constant__ NotifyKernelArgs const args) {
  ptx::wait_for_kernel_before();
  DeviceState* const state = state_of(args.peers);
  std::uint64_t const epoch = state->epoch + 1;
  if (block_has_failed(args.peers)) {
    if (threadIdx.x == 0) publish_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
    return skip_call(args.peers, epoch);
  }
  stamp(args.peers, Stamp::started, blockIdx.x == 0);
  CountShared& shared = *reinterpret_cast<CountShared*>(dynamic_shared);
  if (open_phase(args, epoch, shared)) {
    if (hear_peers(args, epoch, true)) {
      stamp(args.peers, Stamp::agreed);
      place_and_answer(args, epoch, shared);
    } else {
      publish_counts(args);
    }
  }
  if (is_last_block<Readers::own>(&state->blocks_done) && threadIdx.x == 0) state->epoch = epoch;
}

}  // namespace

cudaError_t launch_notify(NotifyKernelArgs const& args, cudaStream_t stream) {
  return launch_next(notify_kernel, args, {args.cut.blocks, count_threads, sizeof(CountShared)}, stream);
}

cudaError_t load_notify() {
  return load_kernel(notify_kernel);
}

}  // namespace switchyard::cuda
