// Dispatch: answer, place every row, arrive.
#include "engine/cuda/launch.hpp"
#include "engine/cuda/phases/padding.cuh"

namespace switchyard::cuda {

namespace {

inline constexpr int metadata_warps = 8;
inline constexpr int most_payload_warps = 12;
[[maybe_unused]] inline constexpr int most_stages = 8;

extern __shared__ std::byte dynamic_shared[];

__device__ void move_rows(DispatchArgs const& args, Destination const* destinations, int warp) {
  BlockWarp const mine{warp, args.payload_warps};
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  __shared__ std::uint64_t barriers[most_payload_warps][most_stages];
  if (args.stages > 0) {
    std::size_t const ring = static_cast<std::size_t>(args.stages) * args.x.piece;
    auto* const base = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(dynamic_shared) + 127) &
                                                    ~std::uintptr_t{127});
    return payload_by_bulk_copies(args, destinations, mine, base + warp * ring, barriers[warp]);
  }
#endif
  payload_by_lanes(args, destinations, mine);
}

__device__ void work(DispatchArgs const& args, Destination const* destinations) {
  int const warp = static_cast<int>(threadIdx.x / 32);
  if (warp < args.payload_warps) return move_rows(args, destinations, warp);
  int const index = warp - args.payload_warps;
  metadata_phase(args, destinations, {index, metadata_warps});
  int const blocks = static_cast<int>(gridDim.x);
  padding_phase(args, destinations[args.peers.rank],
                {static_cast<int>(blockIdx.x) * metadata_warps + index, blocks * metadata_warps});
}

// All answers are there, or the call has failed.
__device__ void tell_host(DispatchArgs const& args) {
  if (blockIdx.x == 0 && threadIdx.x == 0)
    ptx::store_release(&args.waiting.mailbox->ticket, args.ticket);  // pairs with the host's acquire load
}

__global__ void __launch_bounds__((most_payload_warps + metadata_warps) * 32)
    dispatch_kernel(__grid_constant__ DispatchArgs const args) {
  __shared__ Destination destinations[max_node_ranks];
  DeviceState* const state = state_of(args.peers);
  if (has_failed(args.peers)) return tell_host(args);
  std::uint64_t const epoch = state->epoch + (args.cached ? 1 : 0);
  bool const good = answer_phase(args, epoch, destinations);
  tell_host(args);
  if (good) {
    resolve_phase(args, destinations);
    work(args, destinations);
  }
  if (!is_last_block(&state->blocks_done)) return;
  if (threadIdx.x == 0) state->epoch = epoch;
  if (!good || has_failed(args.peers)) return;
  raise_at_peers(args.peers, args.peers.control.arrived, epoch);
  wait_for_peers(args.peers, args.waiting, args.peers.control.arrived, epoch, Phase::arrive);
}

// What a block may have beside its static shared memory.
std::size_t dynamic_limit() {
  int device = 0;
  int limit = 0;
  cudaFuncAttributes attributes;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  if (cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess) return 0;
  if (cudaFuncGetAttributes(&attributes, dispatch_kernel) != cudaSuccess) return 0;
  return static_cast<std::size_t>(limit) - attributes.sharedSizeBytes;
}

}  // namespace

cudaError_t load_dispatch() {
  return cudaFuncSetAttribute(dispatch_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(dynamic_limit()));
}

std::size_t dispatch_shared_bytes() {
  return dynamic_limit() - 128;  // rings start at a multiple of 128
}

cudaError_t launch_dispatch(DispatchArgs const& args, int blocks, cudaStream_t stream) {
  int const threads = (args.payload_warps + metadata_warps) * 32;
  std::size_t const shared =
      args.stages > 0 ? 128 + static_cast<std::size_t>(args.payload_warps) * args.stages * args.x.piece : 0;
  dispatch_kernel<<<blocks, threads, shared, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace switchyard::cuda
