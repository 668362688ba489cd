// Launching the kernels of the throughput mode from host code; see engine/cuda/host/launch.hpp.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "engine/cuda/throughput/args.hpp"

namespace switchyard::cuda {

cudaError_t launch_notify(NotifyKernelArgs const& args, cudaStream_t stream);
cudaError_t launch_dispatch(DispatchKernelArgs const& args, int blocks, cudaStream_t stream);
cudaError_t launch_combine(CombineKernelArgs const& args, int blocks, cudaStream_t stream);
cudaError_t launch_cast(CastKernelArgs const& args, int blocks, cudaStream_t stream);
cudaError_t launch_layout(LayoutKernelArgs const& args, cudaStream_t stream);

cudaError_t load_notify();
cudaError_t load_dispatch();
cudaError_t load_combine();
cudaError_t load_cast();
cudaError_t load_layout();

// Shared memory that a block can have for its rings.
std::size_t dispatch_shared_bytes();
std::size_t combine_shared_bytes();

}  // namespace switchyard::cuda
