// What the buffers of both modes check and ask of their GPU.
#pragma once

#include <initializer_list>

#include "node/host_heap.hpp"
#include "switchyard/tensor.hpp"

namespace switchyard {

// Collective. The GPU of this rank. A `wanted` of -1 means the calling thread's current one.
int choose_device(RankGroup& job, int wanted);

// Collective. Connects control blocks in host memory, with the smallest heap: hosts publish in them when a call
// goes wrong.
ConnectedHeap connect_host_heap(RankGroup& job, Node& node, SizeOptions const& options, BufferPlan const& plan);
ConnectedHeap connect_host_heap(RankGroup& job, Node& node, BufferOptions const& options, BufferPlan const& plan);

struct NamedView {
  char const* name;
  ConstTensorView const& view;
};
// Throws InvalidArgument for a tensor that does not lie in memory of this GPU: a kernel that is handed a host
// pointer, or another GPU's, ends the whole CUDA context.
void check_memory(int device, std::initializer_list<NamedView> views);

int multiprocessors_of(int device);

// The SMs that each of the ranks on a GPU can have. Their kernels wait for one another, so all of them must fit on
// the GPU together.
struct SmShare {
  int most = 1;
  int ranks_per_gpu = 1;
};
void check_sms(int num_sms, SmShare const& share);

}  // namespace switchyard
