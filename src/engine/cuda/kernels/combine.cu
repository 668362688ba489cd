// Combine: stage if need be, announce, pull and sum, close.
#include "engine/cuda/launch.hpp"
#include "engine/cuda/phases/stage.cuh"

namespace switchyard::cuda {

namespace {

inline constexpr int combine_threads = 768;

__global__ void __launch_bounds__(combine_threads, 1) combine_kernel(__grid_constant__ CombineArgs const args) {
  __shared__ SourceRows sources[max_node_ranks];
  if (has_failed(args.peers)) return;
  DeviceState* const state = state_of(args.peers);
  std::uint64_t const epoch = state->epoch + 1;
  bool const teller = stage_phase(args);
  bool const good = source_phase(args, epoch, teller, sources);
  if (blockIdx.x == 0 && threadIdx.x == 0)
    ptx::store_release(&args.waiting.mailbox->ticket, args.ticket);  // pairs with the host's acquire load
  if (good) pull_phase(args, sources);
  if (!is_last_block(&state->blocks_done)) return;
  if (threadIdx.x == 0) state->epoch = epoch;
  if (!good || has_failed(args.peers)) return;
  // Nobody may free or overwrite its outputs before all have read them.
  raise_at_peers(args.peers, args.peers.control.done, epoch);
  wait_for_peers(args.peers, args.waiting, args.peers.control.done, epoch, Phase::combine_close);
}

// By benchmarks and tests: all ranks' next work starts together.
__global__ void gate_kernel(__grid_constant__ Peers const peers, Waiting waiting, std::uint64_t round) {
  if (has_failed(peers)) return;
  raise_at_peers(peers, peers.control.gate, round);
  wait_for_peers(peers, waiting, peers.control.gate, round, Phase::gate);
}

}  // namespace

cudaError_t launch_combine(CombineArgs const& args, int blocks, cudaStream_t stream) {
  combine_kernel<<<blocks, combine_threads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t load_combine() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, combine_kernel);
}

cudaError_t launch_gate(Peers const& peers, Waiting const& waiting, std::uint64_t round, cudaStream_t stream) {
  gate_kernel<<<1, max_node_ranks, 0, stream>>>(peers, waiting, round);
  return cudaGetLastError();
}

cudaError_t load_gate() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, gate_kernel);
}

}  // namespace switchyard::cuda
