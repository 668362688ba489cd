#include "engine/cuda/host/engine_resources.hpp"

#include <fmt/core.h>

#include <chrono>

#include "engine/cuda/host/launch.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

Peers peers_of(EngineResources const& resources) {
  SymmetricHeap const& heap = *resources.device_heap;
  Peers peers{};
  peers.control = device_control_layout(resources.control);
  peers.rank = heap.rank();
  peers.num_ranks = heap.num_ranks();
  for (int rank = 0; rank < heap.num_ranks(); ++rank) {
    peers.segment[rank] = heap.control(rank);
    // Heaps grow. What a peer names has been mapped here before: see node/heap_growth.hpp.
    peers.heap_bytes[rank] = heap.heap_capacity(rank);
  }
  return peers;
}

void load_kernels(std::initializer_list<KernelLoader> kernels) {
  for (KernelLoader const& kernel : kernels)
    check_cuda(kernel.load(), fmt::format("loading the {} kernel", kernel.name));
}

void queue_gate(EngineResources const& resources, Waiting const& waiting, std::uint64_t round,
                cudaStream_t stream) {
  CurrentDevice const current(resources.device);
  // A host takes less time than this to queue a call, also when all ranks' hosts do it at once.
  constexpr std::chrono::nanoseconds hold = std::chrono::microseconds{150};
  check_cuda(launch_gate({.peers = peers_of(resources),
                          .waiting = waiting,
                          .round = round,
                          .hold_ns = static_cast<std::uint64_t>(hold.count()),
                          .one_clock = resources.ranks_per_gpu == resources.device_heap->num_ranks()},
                         stream),
             "launching the gate kernel");
}

}  // namespace switchyard::cuda
