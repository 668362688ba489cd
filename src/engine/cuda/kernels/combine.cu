// Combine: stage if need be, announce, pull and sum, close.
#include "engine/cuda/launch.hpp"
#include "engine/cuda/phases/stage.cuh"

namespace switchyard::cuda {

namespace {

// With the copy engine: warps that pull, and warps for weights. Without: all pull.
inline constexpr int combine_threads = (pull_warps + 4) * 32;

extern __shared__ std::byte dynamic_shared[];

__global__ void __launch_bounds__(combine_threads, 1) combine_kernel(__grid_constant__ CombineArgs const args) {
  __shared__ SourceRows sources[max_node_ranks];
  DeviceState* const state = state_of(args.peers);
  // Any block: those that began before the failure may have told nothing.
  if (has_failed(args.peers)) return tell_ticket(args.waiting.mailbox->ticket, args.ticket);
  stamp(args.peers, Stamp::started, blockIdx.x == 0);
  std::uint64_t const epoch = state->epoch + 1;
  bool const teller = stage_phase(args);
  stamp(args.peers, Stamp::counted, teller);
  bool const good = source_phase(args, epoch, teller, sources);
  stamp(args.peers, Stamp::agreed, blockIdx.x == 0);
  // All announces are there, or the call has failed.
  if (blockIdx.x == 0) tell_ticket(args.waiting.mailbox->ticket, args.ticket);
  if (good) {
    ptx::fence_proxy_async();  // what was acquired is seen by the copy engine, too
    auto const base = (reinterpret_cast<std::uintptr_t>(dynamic_shared) + 127) & ~std::uintptr_t{127};
    pull_phase(args, sources, reinterpret_cast<std::byte*>(base));
  }
  if (!is_last_block<Readers::own>(&state->blocks_done)) return;
  stamp(args.peers, Stamp::moved);
  if (threadIdx.x == 0) state->epoch = epoch;
  if (!good || has_failed(args.peers)) return;
  // Nobody may free or overwrite its outputs before all have read them.
  raise_at_peers(args.peers, args.peers.control.done, epoch);
  wait_for_peers(args.peers, args.waiting, args.peers.control.done, epoch, Phase::combine_close);
  stamp(args.peers, Stamp::closed);
}

}  // namespace

std::uint32_t combine_piece() {
  return pull_piece;
}

cudaError_t launch_combine(CombineArgs const& args, int blocks, cudaStream_t stream) {
  std::size_t const shared = args.piece > 0 ? pull_shared_bytes : 0;
  combine_kernel<<<blocks, combine_threads, shared, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t load_combine() {
  int device = 0;
  int limit = 0;
  cudaFuncAttributes attributes;
  if (cudaError_t const error = cudaGetDevice(&device); error != cudaSuccess) return error;
  cudaError_t const error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  if (static_cast<std::size_t>(limit) < pull_shared_bytes)
    return cudaFuncGetAttributes(&attributes, combine_kernel);
  return cudaFuncSetAttribute(combine_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(pull_shared_bytes));
}

}  // namespace switchyard::cuda
