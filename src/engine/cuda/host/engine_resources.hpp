// What an engine of either mode is built on, and what both do with it.
#pragma once

#include <cuda_runtime_api.h>

#include <initializer_list>
#include <memory>

#include "control/signals.hpp"
#include "engine/cuda/host/args.hpp"
#include "memory/symmetric_heap.hpp"
#include "node/node.hpp"

namespace switchyard::cuda {

struct EngineResources {
  std::shared_ptr<SymmetricHeap> device_heap;  // in GPU memory: rows, and what kernels publish to each other
  std::shared_ptr<SymmetricHeap> host_heap;    // in host memory: what hosts publish when a call goes wrong
  std::shared_ptr<Node> node;
  int device = 0;
  int ranks_per_gpu = 1;
  DeviceSizes control;  // of the control blocks in GPU memory
  WaitPolicy wait;
};

// The segments of all ranks, as kernels take them.
[[nodiscard]] Peers peers_of(EngineResources const& resources);

struct KernelLoader {
  char const* name;
  cudaError_t (*load)();
};
// Loads the kernels of an engine. The engine does this before any of them runs: a load may wait for the whole
// context, and so for a kernel of a peer that waits for this rank.
void load_kernels(std::initializer_list<KernelLoader> kernels);

// Queues a gate: work that all ranks queue on their streams behind it starts at the same time. `round` is as in
// GateArgs.
void queue_gate(EngineResources const& resources, Waiting const& waiting, std::uint64_t round, cudaStream_t stream);

}  // namespace switchyard::cuda
