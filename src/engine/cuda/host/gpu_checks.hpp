// What the CUDA engine's buffers of both modes do alike.
#pragma once

#include "node/host_heap.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard {

// Collective: the GPU of this rank; `wanted` -1: the calling thread's current one.
int choose_device(Job& job, int wanted);

// Collective. Host control blocks alone: what ranks say when a call goes wrong.
ConnectedHeap connect_host_heap(Job& job, SizeOptions const& options, BufferPlan const& plan);
ConnectedHeap connect_host_heap(Job& job, BufferOptions const& options, BufferPlan const& plan);

// A kernel that is handed a host pointer, or another GPU's, ends the whole context.
void check_memory(char const* name, ConstTensorView const& view, int device);

int multiprocessors_of(int device);

}  // namespace switchyard
