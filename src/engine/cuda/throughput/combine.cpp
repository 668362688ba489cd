// The host side of a combine: it finds where tensors lie, or where they are staged.
#include <fmt/core.h>

#include "base/check.hpp"
#include "call/heap_tensors.hpp"
#include "engine/cuda/host/rows.hpp"
#include "engine/cuda/throughput/engine.hpp"
#include "engine/cuda/throughput/launch.hpp"

namespace switchyard::cuda {

// Finds where peers read the tensor: where it lies, if that is in the heap, or in a block to which the kernel
// copies it.
void Engine::stage(CombineCall& call, ConstTensorView const& view, SourceTensor& tensor) {
  tensor.heap_offset = -1;
  if (!view.given() || call.refusal) return;
  tensor.row_bytes = static_cast<std::uint32_t>(row_bytes_of(view));
  tensor.row_stride = row_stride_of(view);
  std::size_t const bytes = static_cast<std::size_t>(view.size(0)) * tensor.row_bytes;
  // A tensor without rows has no address of its own. It gets one, because a null pointer says that it is not given.
  tensor.data = bytes == 0 ? heap_->heap(heap_->rank()) : static_cast<std::byte const*>(view.data);
  if (bytes == 0) {
    tensor.heap_offset = 0;
    return;
  }
  if (is_contiguous(view)) {
    // Peers accept offsets of whole floats only.
    if (auto const offset = heap_->offset_of(view.data, bytes); offset && *offset % sizeof(float) == 0) {
      tensor.heap_offset = static_cast<std::int64_t>(*offset);
      return;
    }
  }
  auto block = take(bytes);
  if (!block) {
    call.refusal = no_room_to_stage(*heap_, bytes, view.size(0));
    return;
  }
  tensor.stage = true;
  tensor.heap_offset = static_cast<std::int64_t>(block->offset);
  keep_own(std::move(*block));
}

void Engine::combine(CombineCall& call, cudaStream_t caller) {
  check_usable();
  CurrentDevice const current(resources_.device);
  join(caller);
  begin_call(Call::combine);
  switchyard::CombineArgs const& from = call.args;
  if (!call.refusal) call.refusal = why_void(*from.handle.routing());
  CombineKernelArgs args{};
  args.peers = peers_;
  args.waiting = waiting();
  stage(call, from.x, args.x);
  stage(call, from.topk_weights, args.weights);
  stage(call, from.row_weights, args.row_weights);
  refuse_in_capture(call.refusal);
  args.ticket = ++ticket_;
  if (!call.refusal) {
    args.handle = device_handle(*from.handle.routing());
    args.rows = from.x.size(0);
    args.own_in_place = args.x.stage && !args.handle.expanded &&
                        suits_bulk_copies(args.x.data, args.x.row_stride, args.x.row_bytes);
    args.pull = plan_pull(args.x.row_bytes, args.handle.width, rings_.combine);
    args.hidden = from.x.size(1);
    args.dtype = from.x.dtype;
    int which = 0;
    for (ConstTensorView const& bias : {from.bias0, from.bias1}) {
      args.bias[which] = static_cast<std::byte const*>(bias.data);
      args.bias_stride[which++] = bias.given() ? row_stride_of(bias) : 0;
    }
    args.out = static_cast<std::byte*>(call.out.data);
    args.out_stride = row_stride_of(call.out);
    args.out_weights = static_cast<float*>(call.out_weights.data);
    args.weight_slots = static_cast<int>(returned_slots(from));
    args.weights_of_all_ranks = from.weights_of_all_ranks;
    args.digest = digest_of(terms_of(call));
  }
  // After a dispatch whose host did not wait for counts, the host does not wait here, either.
  bool const waits = call.refusal || (call.waits && !from.handle.routing()->worst);
  if (!waits) monitor_.report_mismatch_of(first_ticket_);
  check_cuda(launch_combine(args, call.workers, stream_.get()), "launching the combine kernel");
  if (!waits) return;
  wait_for_ticket();
  throw_if_failed({.terms = terms_of(call), .refusal = call.refusal, .phase = "combine/announce"});
}

}  // namespace switchyard::cuda
