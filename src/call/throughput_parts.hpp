// What the buffers of both engines do alike.
#pragma once

#include <initializer_list>

#include "base/refusal.hpp"
#include "call/calls.hpp"
#include "call/throughput_arguments.hpp"
#include "control/signals.hpp"
#include "plan/buffer_plan.hpp"

namespace switchyard {

// What options and settings come to, on this rank.
struct Decisions {
  BufferPlan plan;
  WaitPolicy wait;
};

// Collective: a rank that cannot go on stops all.
Decisions decide_together(Node& node, BufferOptions const& options);
// The same where the heap is host memory.
Decisions decide_on_host_together(Node& node, BufferOptions const& options);

// Runs `step`; what it throws goes to the peers with the call.
template <typename Call, typename Step>
void attempt(Call& call, Step const& step) {
  if (!call.refusal) call.refusal = refusal_of(step);
}

// The rows that a dispatch's result has, as far as its arguments tell.
ReceiveShape shape_of(DispatchArgs const& args, OutputLayout layout, std::int64_t top_k);

// The sending side of a dispatch's routing, but for the routes.
void describe(DispatchArgs const& args, BufferFacts const& buffer, int rank, detail::Routing& routing);

// The tensors of a dispatch's result, in its block.
void fill_tensors(DispatchCall const& call, Device device, Dispatched& result);

// A tensor of the heap; throws OutOfMemory.
Tensor allocate_tensor(SymmetricHeap& heap, DType dtype, std::initializer_list<std::int64_t> shape, Device device);

[[noreturn]] void throw_no_memory(SymmetricHeap const& heap, std::size_t bytes, std::string_view what);

// Where a combine's results go: into the caller's tensors, or into new ones.
struct CombineSizes {
  std::int64_t hidden;
  Device device;
};
void prepare_outputs(CombineCall& call, SymmetricHeap& heap, CombineSizes const& sizes, Combined& result);

}  // namespace switchyard
