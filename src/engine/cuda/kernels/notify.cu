// Layout and notify: from top-k ids to the place of every row.
#include "engine/cuda/launch.hpp"
#include "engine/cuda/phases/place.cuh"

namespace switchyard::cuda {

namespace {

// What the host waits for; mailbox writes of this block come before.
__device__ void tell_host(NotifyArgs const& args) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  DeviceState* const state = state_of(args.peers);
  args.waiting.mailbox->bad_id = static_cast<std::int64_t>(state->bad_id);
  state->bad_id = ~std::uint64_t{0};
  ptx::store_release(&args.waiting.mailbox->ticket, args.ticket);  // pairs with the host's acquire load
}

__global__ void __launch_bounds__(layout_threads) notify_kernel(__grid_constant__ NotifyArgs const args) {
  if (has_failed(args.peers)) return tell_host(args);
  DeviceState* const state = state_of(args.peers);
  layout_phase(args);
  if (!is_last_block(&state->blocks_done)) return;
  std::uint64_t const epoch = state->epoch + 1;
  std::uint64_t const digest = digest_to_tell(args);
  send_counts(args);
  if (agree(args.peers, args.waiting, epoch, digest)) place_phase(args, epoch);
  if (threadIdx.x == 0) state->epoch = epoch;
  tell_host(args);
}

}  // namespace

cudaError_t launch_notify(NotifyArgs const& args, int blocks, cudaStream_t stream) {
  notify_kernel<<<blocks, layout_threads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t load_notify() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, notify_kernel);
}

}  // namespace switchyard::cuda
