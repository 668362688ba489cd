#include "engine/cuda/device/command_ring.cuh"
#include "gpu/proxy/push.hpp"

namespace switchyard::cuda {

namespace {

struct Patience {
  std::uint64_t ends;
  __device__ bool operator()() const { return ptx::global_timer() > ends; }
};

__global__ void push_all(CommandRingView ring, PushLoad load, PushArgs args) {
  Patience const patience{ptx::global_timer() + args.patience_ns};
  auto const who = static_cast<std::uint64_t>(blockIdx.x) * load.pushers + threadIdx.x;
  for (std::size_t i = 0; i < load.commands; ++i) {
    std::uint64_t const command = who << 32 | i;
    args.notes[who * load.commands + i] = ~command;
    if (push(ring, command, patience)) continue;
    atomicAdd(args.gave_up, 1U);
    return;
  }
}

}  // namespace

cudaError_t launch_push_all(CommandRingView const& ring, PushLoad const& load, PushArgs const& args) {
  push_all<<<load.blocks, load.pushers>>>(ring, load, args);
  return cudaGetLastError();
}

}  // namespace switchyard::cuda
