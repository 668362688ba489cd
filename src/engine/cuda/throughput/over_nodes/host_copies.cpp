#include "engine/cuda/throughput/over_nodes/host_copies.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "layout/receive_block.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

namespace {

// From the first element to behind the last one. Strides are not negative.
std::size_t span_bytes(ConstTensorView const& view) {
  if (view.numel() == 0) return 0;
  std::int64_t const last = (view.size(0) - 1) * view.stride(0) + (view.size(1) - 1) * view.stride(1);
  return static_cast<std::size_t>(last + 1) * size_of(view.dtype);
}

}  // namespace

void HostCopies::take(DispatchArgs& args, cudaStream_t stream) {
  std::array const views{&args.topk_idx, &args.topk_weights, &args.token_in_rank};
  std::size_t bytes = 0;
  for (ConstTensorView const* view : views)
    if (view->given()) bytes += align_up(span_bytes(*view), part_alignment);
  std::byte* next = room(bytes);
  for (ConstTensorView* view : views) {
    if (!view->given()) continue;
    std::size_t const size = span_bytes(*view);
    if (size > 0)
      check_cuda(cudaMemcpyAsync(next, view->data, size, cudaMemcpyDeviceToHost, stream),
                 "reading ids and weights");
    view->data = next;
    view->device = Device::cpu;
    next += align_up(size, part_alignment);
  }
  check_cuda(cudaStreamSynchronize(stream), "reading ids and weights");
}

std::byte* HostCopies::room(std::size_t bytes) {
  constexpr std::size_t least = 4096;
  if (!memory_ || memory_->bytes().size() < bytes)
    memory_ = std::make_unique<PinnedMemory>(std::bit_ceil(std::max(bytes, least)));
  return memory_->bytes().data();
}

}  // namespace switchyard::cuda
