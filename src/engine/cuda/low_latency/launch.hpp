// Launching the kernels of the low-latency mode from host code; see engine/cuda/host/launch.hpp.
#pragma once

#include <cuda_runtime_api.h>

#include "engine/cuda/low_latency/args.hpp"

namespace switchyard::cuda {

// Sets args.buffer_rows.
cudaError_t launch_slot_dispatch(SlotDispatchArgs& args, int blocks, cudaStream_t stream);
cudaError_t launch_slot_combine(SlotCombineArgs const& args, int blocks, cudaStream_t stream);
// Gives frames back outside of any call.
cudaError_t launch_slot_release(SlotArgs const& args, cudaStream_t stream);
cudaError_t launch_slot_mask(SlotMaskArgs const& args, cudaStream_t stream);

// How many experts a block of the current GPU can count.
int most_slot_experts();

cudaError_t load_slot_dispatch();
cudaError_t load_slot_combine();
cudaError_t load_slot_credit();

}  // namespace switchyard::cuda
