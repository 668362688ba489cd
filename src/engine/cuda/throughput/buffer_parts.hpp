// What the buffers of one node and of several have in common.
#pragma once

#include <cstddef>
#include <cstdint>

#include "call/throughput.hpp"
#include "engine/cuda/host/gpu_checks.hpp"
#include "layout/device_control.hpp"
#include "memory/symmetric_heap.hpp"
#include "plan/buffer_plan.hpp"
#include "plan/sm_plan.hpp"

namespace switchyard::cuda {

// Of the control blocks in GPU memory, for kernels of `num_ranks` ranks that signal one another.
DeviceSizes control_sizes_of(BufferOptions const& options, int num_ranks);
SmProblem sm_problem_of(BufferOptions const& options, int num_ranks, int ranks_per_gpu, int device);
// A heap that grows takes half of what is free, shared by the ranks of the node, at most.
std::size_t first_heap_bytes(BufferPlan const& plan, int device, int num_ranks);

// Check what the caller passed: the arguments, whose memory the tensors lie in, and SMs. Throw InvalidArgument.
void check_on_gpu(DispatchArgs const& args, BufferInfo const& buffer, SmShare const& sms);
void check_on_gpu(CombineArgs const& args, BufferInfo const& buffer, SmShare const& sms);

// Buffer::by_column, of checked scales, on the caller's stream; empty where the heap has no room at once.
Tensor copy_by_column(SymmetricHeap& heap, ConstTensorView const& scales, std::uintptr_t cuda_stream);

}  // namespace switchyard::cuda
