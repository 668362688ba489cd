// The dispatch kernel: it counts, agrees and answers as far as that is not done yet, moves every row, and arrives.
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/throughput/kernels/answer.cuh"
#include "engine/cuda/throughput/kernels/metadata.cuh"
#include "engine/cuda/throughput/kernels/place.cuh"
#include "engine/cuda/throughput/kernels/resolve.cuh"
#include "engine/cuda/throughput/kernels/rows.cuh"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int dispatch_warps = count_threads / 32;
inline constexpr int most_row_warps = 12;
[[maybe_unused]] inline constexpr int most_stages = 8;

extern __shared__ std::byte dynamic_shared[];

__device__ void move_rows(DispatchKernelArgs const& args, Destination const* destinations, int warp) {
  BlockWarp const mine{warp, args.row_warps};
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  __shared__ std::uint64_t barriers[most_row_warps][most_stages];
  if (args.stages > 0) {
    std::size_t const ring = static_cast<std::size_t>(args.stages) * args.x.piece;
    return move_rows_in_bulk(args, destinations, mine, align_ring(dynamic_shared) + warp * ring, barriers[warp]);
  }
#endif
  move_rows_by_lanes(args, destinations, mine);
}

// Some warps of a block move rows, and the others do the rest.
__device__ void move_phase(DispatchKernelArgs const& args, Destination const* destinations) {
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (warp < args.row_warps) return move_rows(args, destinations, warp);
  int const index = warp - args.row_warps;
  int const others = dispatch_warps - args.row_warps;
  metadata_phase(args, destinations, {index, others});
  int const blocks = static_cast<int>(gridDim.x);
  padding_phase(args, destinations[args.peers.rank],
                {static_cast<int>(blockIdx.x) * others + index, blocks * others});
}

__global__ void __launch_bounds__(count_threads, 1)
    dispatch_kernel(__grid_constant__ DispatchKernelArgs const args) {
  __shared__ Destination destinations[max_node_ranks];
  DeviceState* const state = state_of(args.peers);
  ptx::wait_for_kernel_before();
  std::uint64_t const epoch = state->epoch + (args.start == DispatchStart::counted ? 0 : 1);
  // Any block publishes the tickets, because the blocks that began before the failure may not have done so.
  if (block_has_failed(args.peers)) {
    publish_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
    publish_ticket(args.peers, args.waiting.mailbox->answered, args.ticket);
    return skip_call(args.peers, epoch);
  }
  stamp(args.peers, Stamp::started, blockIdx.x == 0);
  if (args.start == DispatchStart::notify)
    notify_phase(args, epoch, *reinterpret_cast<CountShared*>(align_ring(dynamic_shared)));
  bool const good = answer_phase(args, epoch, destinations);
  if (blockIdx.x == 0) publish_ticket(args.peers, args.waiting.mailbox->answered, args.ticket);
  stamp(args.peers, Stamp::answered, blockIdx.x == 0);
  if (good) {
    ptx::fence_proxy_async();  // what receivers did in their blocks before they answered comes before our copies
    resolve_phase(args, destinations);
    move_phase(args, destinations);
  }
  if (!is_last_block<Readers::peers>(&state->blocks_done)) return;
  stamp(args.peers, Stamp::moved);
  if (threadIdx.x == 0) state->epoch = epoch;
  if (!good || has_failed(args.peers)) return;
  raise_flags(args.peers, args.peers.control.arrived, epoch);
  bool const complete =
      wait_for_flags(args.peers, args.waiting, args.peers.control.arrived, epoch, WaitPoint::arrive);
  // A replayed graph comes with an old number.
  if (complete && threadIdx.x == 0 && state->complete < args.number) state->complete = args.number;
  stamp(args.peers, Stamp::closed);
}

}  // namespace

cudaError_t load_dispatch() {
  return allow_all_memory(dispatch_kernel);
}

std::size_t dispatch_shared_bytes() {
  return ring_room(dispatch_kernel);
}

cudaError_t launch_dispatch(DispatchKernelArgs const& args, int blocks, cudaStream_t stream) {
  std::size_t const rings = static_cast<std::size_t>(args.row_warps) * args.stages * args.x.piece;
  std::size_t const counting = args.start == DispatchStart::notify ? sizeof(CountShared) : 0;
  std::size_t const shared = ring_alignment + (rings > counting ? rings : counting);
  return launch_next(dispatch_kernel, args, {blocks, count_threads, shared}, stream);
}

}  // namespace switchyard::cuda
