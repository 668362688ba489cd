// Layout and notify: from top-k ids to the place of every row, where the host must allocate by the counts.
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/throughput/kernels/open.cuh"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

namespace {

extern __shared__ std::byte dynamic_shared[];

__global__ void __launch_bounds__(layout_threads) notify_kernel(__grid_constant__ NotifyArgs const args) {
  ptx::wait_for_kernel_before();
  DeviceState* const state = state_of(args.peers);
  std::uint64_t const epoch = state->epoch + 1;
  if (block_has_failed(args.peers)) {
    tell_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
    return sit_out(args.peers, epoch);
  }
  stamp(args.peers, Stamp::started, blockIdx.x == 0);
  open_phase(args, epoch, *reinterpret_cast<LayoutShared*>(dynamic_shared));
  if (is_last_block<Readers::own>(&state->blocks_done) && threadIdx.x == 0) state->epoch = epoch;
}

}  // namespace

cudaError_t launch_notify(NotifyArgs const& args, cudaStream_t stream) {
  return launch_next(notify_kernel, args, {args.cut.blocks, layout_threads, sizeof(LayoutShared)}, stream);
}

cudaError_t load_notify() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, notify_kernel);
}

}  // namespace switchyard::cuda
