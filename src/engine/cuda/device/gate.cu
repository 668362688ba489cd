// The gate, for benchmarks and tests: the next work of all ranks starts together, and late enough for all hosts to
// have queued it.
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/host/launch.hpp"

namespace switchyard::cuda {

namespace {

// When the last rank came. Threads 0..num_ranks-1 look at a rank each.
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
  __syncthreads();                                           // all threads have read the epoch before it is raised
  if (static_cast<int>(threadIdx.x) < args.peers.num_ranks)  // pairs with the load_acquire() in wait_flag()
    ptx::store_release(&gate_of(args.peers, static_cast<int>(threadIdx.x), args.peers.rank)->epoch, round);
  if (!wait_for_flags(args.peers, args.waiting, args.peers.control.gate, round, WaitPoint::gate)) return;
  // Each GPU has a clock of its own. Ranks that share one open at the same tick.
  std::uint64_t const begin = args.one_clock ? latest_arrival(args) : ptx::global_timer();
  // The time of the last arrival comes from a peer, so it must not hold the gate beyond the deadline of a wait.
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
  return load_kernel(gate_kernel);
}

}  // namespace switchyard::cuda
