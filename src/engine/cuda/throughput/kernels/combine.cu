// The combine kernel: it stages outputs that need it, announces where they lie, pulls and sums rows, and closes.
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/throughput/kernels/pull_bulk.cuh"
#include "engine/cuda/throughput/kernels/stage.cuh"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

namespace {

// With the copy engine teams of warps pull, and other warps gather weights. Without it all warps pull.
inline constexpr int combine_threads = (all_team_warps + weight_warps) * 32;

extern __shared__ std::byte dynamic_shared[];

__global__ void __launch_bounds__(combine_threads, 1)
    combine_kernel(__grid_constant__ CombineKernelArgs const args) {
  __shared__ SourceRows sources[max_node_ranks];
  DeviceState* const state = state_of(args.peers);
  ptx::wait_for_kernel_before();
  std::uint64_t const epoch = state->epoch + 1;
  // Any block publishes the ticket, because the blocks that began before the failure may not have done so.
  if (block_has_failed(args.peers)) {
    if (threadIdx.x == 0) publish_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
    return skip_call(args.peers, epoch);
  }
  stamp(args.peers, Stamp::started, blockIdx.x == 0);
  prepare_pull(args);  // the barriers of source_phase() come before the first pull
  bool const publishes = stage_phase(args);
  stamp(args.peers, Stamp::counted, publishes);
  bool const good = source_phase(args, epoch, publishes, sources);
  stamp(args.peers, Stamp::agreed, blockIdx.x == 0);
  // All announces have arrived, or the call has failed. A warp publishes it that has little to pull, of the block
  // that has the fewest tokens.
  if (blockIdx.x + 1 == gridDim.x && threadIdx.x + 32 == blockDim.x)
    publish_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
  if (good) {
    ptx::fence_proxy_async();  // what was acquired is visible to the copy engine, too
    pull_phase(args, sources, align_ring(dynamic_shared));
  }
  if (!is_last_warp<Readers::own>(&state->blocks_done)) return;
  stamp(args.peers, Stamp::moved);
  if (threadIdx.x == 0) state->epoch = epoch;
  if (!good || __any_sync(~0U, has_failed(args.peers))) return;
  // A rank may free or overwrite its outputs only when all ranks have read them.
  meet_peers(args.peers, args.waiting, args.peers.control.done, epoch, WaitPoint::combine_close);
  stamp(args.peers, Stamp::closed);
}

}  // namespace

std::size_t combine_shared_bytes() {
  return ring_room(combine_kernel);
}

cudaError_t launch_combine(CombineKernelArgs const& args, int blocks, cudaStream_t stream) {
  std::size_t const shared = pull_teams * args.pull.ring_bytes() + ring_alignment;
  return launch_next(combine_kernel, args, {blocks, combine_threads, shared}, stream);
}

cudaError_t load_combine() {
  return allow_all_memory(combine_kernel);
}

}  // namespace switchyard::cuda
