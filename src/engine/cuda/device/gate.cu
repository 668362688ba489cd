// Gate, for benchmarks and tests: all ranks' next work starts together, and so late that hosts have queued it.
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/host/launch.hpp"

namespace switchyard::cuda {

namespace {

// By threads 0..num_ranks-1. The moment when the last rank came.
__device__ std::uint64_t latest_arrival(GateArgs const& args) {
  __shared__ unsigned long long latest;
  if (threadIdx.x == 0) latest = 0;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks)
    atomicMax(&latest, static_cast<unsigned long long>(
                           gate_of(args.peers, args.peers.rank, static_cast<int>(threadIdx.x))->value));
  __syncthreads();
  return latest;
}

__global__ void gate_kernel(__grid_constant__ GateArgs const args) {
  if (has_failed(args.peers)) return;
  std::uint64_t const now = ptx::global_timer();
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks)
    gate_of(args.peers, static_cast<int>(threadIdx.x), args.peers.rank)->value = now;
  std::uint64_t const round =
      args.round > 0 ? args.round : gate_of(args.peers, args.peers.rank, args.peers.rank)->epoch + 1;
  __syncthreads();  // all have read it
  raise_at_peers(args.peers, args.peers.control.gate, round);
  if (!wait_for_peers(args.peers, args.waiting, args.peers.control.gate, round, Phase::gate)) return;
  // GPUs have clocks of their own; those that share one open at the same tick.
  std::uint64_t const begin = args.one_clock ? latest_arrival(args) : ptx::global_timer();
  // Peers say when the last one came: no longer than the deadline of a wait.
  while (ptx::global_timer() < begin + args.hold_ns && ptx::global_timer() - now < args.waiting.timeout_ns) {
  }
  stamp(args.peers, Stamp::released);
}

}  // namespace

cudaError_t launch_gate(GateArgs const& args, cudaStream_t stream) {
  gate_kernel<<<1, max_node_ranks, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t load_gate() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, gate_kernel);
}

}  // namespace switchyard::cuda
