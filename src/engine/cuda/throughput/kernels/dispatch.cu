// Dispatch: (count, tell,) answer, place every row, arrive.
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/device/ring_memory.cuh"
#include "engine/cuda/throughput/kernels/open.cuh"
#include "engine/cuda/throughput/kernels/padding.cuh"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

namespace {

inline constexpr int dispatch_warps = layout_threads / 32;
inline constexpr int most_payload_warps = 12;
[[maybe_unused]] inline constexpr int most_stages = 8;

extern __shared__ std::byte dynamic_shared[];

__device__ void move_rows(DispatchArgs const& args, Destination const* destinations, int warp) {
  BlockWarp const mine{warp, args.payload_warps};
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  __shared__ std::uint64_t barriers[most_payload_warps][most_stages];
  if (args.stages > 0) {
    std::size_t const ring = static_cast<std::size_t>(args.stages) * args.x.piece;
    return payload_by_bulk_copies(args, destinations, mine, align_ring(dynamic_shared) + warp * ring,
                                  barriers[warp]);
  }
#endif
  payload_by_lanes(args, destinations, mine);
}

__device__ void work(DispatchArgs const& args, Destination const* destinations) {
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (warp < args.payload_warps) return move_rows(args, destinations, warp);
  int const index = warp - args.payload_warps;
  int const others = dispatch_warps - args.payload_warps;
  metadata_phase(args, destinations, {index, others});
  int const blocks = static_cast<int>(gridDim.x);
  padding_phase(args, destinations[args.peers.rank],
                {static_cast<int>(blockIdx.x) * others + index, blocks * others});
}

__global__ void __launch_bounds__(layout_threads, 1) dispatch_kernel(__grid_constant__ DispatchArgs const args) {
  __shared__ Destination destinations[max_node_ranks];
  DeviceState* const state = state_of(args.peers);
  ptx::wait_for_kernel_before();
  std::uint64_t const epoch = state->epoch + (args.opening == Opening::counted ? 0 : 1);
  // Any block tells: those that began before the failure may have told nothing.
  if (block_has_failed(args.peers)) {
    tell_ticket(args.peers, args.waiting.mailbox->ticket, args.ticket);
    tell_ticket(args.peers, args.waiting.mailbox->answered, args.ticket);
    return sit_out(args.peers, epoch);
  }
  stamp(args.peers, Stamp::started, blockIdx.x == 0);
  if (args.opening == Opening::notify)
    open_phase(args, epoch, *reinterpret_cast<LayoutShared*>(align_ring(dynamic_shared)));
  bool const good = answer_phase(args, epoch, destinations);
  if (blockIdx.x == 0) tell_ticket(args.peers, args.waiting.mailbox->answered, args.ticket);
  stamp(args.peers, Stamp::answered, blockIdx.x == 0);
  if (good) {
    ptx::fence_proxy_async();  // what receivers did in their blocks before they answered comes before our copies
    resolve_phase(args, destinations);
    work(args, destinations);
  }
  if (!is_last_block<Readers::peers>(&state->blocks_done)) return;
  stamp(args.peers, Stamp::moved);
  if (threadIdx.x == 0) state->epoch = epoch;
  if (!good || has_failed(args.peers)) return;
  raise_at_peers(args.peers, args.peers.control.arrived, epoch);
  bool const there = wait_for_peers(args.peers, args.waiting, args.peers.control.arrived, epoch, Phase::arrive);
  // A graph repeats an old number.
  if (there && threadIdx.x == 0 && state->complete < args.number) state->complete = args.number;
  stamp(args.peers, Stamp::closed);
}

}  // namespace

cudaError_t load_dispatch() {
  return allow_all_memory(dispatch_kernel);
}

std::size_t dispatch_shared_bytes() {
  return ring_room(dispatch_kernel);
}

cudaError_t launch_dispatch(DispatchArgs const& args, int blocks, cudaStream_t stream) {
  std::size_t const rings = static_cast<std::size_t>(args.payload_warps) * args.stages * args.x.piece;
  std::size_t const opening = args.opening == Opening::notify ? sizeof(LayoutShared) : 0;
  std::size_t const shared = ring_alignment + (rings > opening ? rings : opening);
  return launch_next(dispatch_kernel, args, {blocks, layout_threads, shared}, stream);
}

}  // namespace switchyard::cuda
