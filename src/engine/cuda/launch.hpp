// Launching the kernels from host code. All return the launch's error; load_*() bring a kernel into the context,
// which must not happen while a peer in the same context waits in a kernel.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "engine/cuda/kernel_args.hpp"

namespace switchyard::cuda {

cudaError_t launch_notify(NotifyArgs const& args, cudaStream_t stream);
cudaError_t launch_dispatch(DispatchArgs const& args, int blocks, cudaStream_t stream);
cudaError_t launch_combine(CombineArgs const& args, int blocks, cudaStream_t stream);
cudaError_t launch_cast(CastArgs const& args, int blocks, cudaStream_t stream);
cudaError_t launch_layout(LayoutArgs const& args, cudaStream_t stream);
// Waits, on the GPU, until the same is launched on all ranks.
cudaError_t launch_gate(GateArgs const& args, cudaStream_t stream);
// Writes the GPU's clock (ns) to `to`, in memory that the GPU reaches.
cudaError_t launch_stamp(std::uint64_t* to, cudaStream_t stream);

cudaError_t load_notify();
cudaError_t load_dispatch();
cudaError_t load_combine();
cudaError_t load_cast();
cudaError_t load_layout();
cudaError_t load_gate();
cudaError_t load_stamp();

// Shared memory that a block can have for its rings.
std::size_t dispatch_shared_bytes();
std::size_t combine_shared_bytes();

}  // namespace switchyard::cuda
