// Launching the kernels of both modes from host code. All launch_*() and load_*() return CUDA's error. load_*()
// bring a kernel into the context, which must not happen while a peer in the same context waits in a kernel.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "engine/cuda/host/args.hpp"

namespace switchyard::cuda {

// Waits, on the GPU, until all ranks have launched the same.
cudaError_t launch_gate(GateArgs const& args, cudaStream_t stream);
// Writes the GPU's clock (in ns) to `to`, in memory that the GPU can reach.
cudaError_t launch_stamp(std::uint64_t* to, cudaStream_t stream);

cudaError_t load_gate();
cudaError_t load_stamp();

}  // namespace switchyard::cuda
