#include "engine/cuda/throughput/buffer_parts.hpp"

#include <algorithm>

#include "engine/cuda/throughput/results.hpp"
#include "layout/experts.hpp"
#include "memory/device/cuda_check.hpp"
#include "memory/stream_uses.hpp"

namespace switchyard::cuda {

namespace {

// Rows of what experts take and return, which is wider than what may be cast on the way.
constexpr std::int64_t usual_element_bytes = 2;

}  // namespace

DeviceSizes control_sizes_of(BufferOptions const& options, int num_ranks) {
  return {.num_ranks = num_ranks,
          .num_experts = options.num_experts,
          .max_local_experts = ExpertSplit(options.num_experts, num_ranks).max_count(),
          .max_tokens = options.max_tokens,
          .top_k = options.top_k};
}

SmProblem sm_problem_of(BufferOptions const& options, int num_ranks, int ranks_per_gpu, int device) {
  CurrentDevice const current(device);
  auto const attribute = [device](cudaDeviceAttr which) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
    return value;
  };
  std::size_t free = 0;
  std::size_t total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return {.sms = attribute(cudaDevAttrMultiProcessorCount),
          .ranks_per_gpu = ranks_per_gpu,
          .num_ranks = num_ranks,
          .rates = gpu_rates(attribute(cudaDevAttrComputeCapabilityMajor),
                             attribute(cudaDevAttrComputeCapabilityMinor), total),
          .row_bytes = options.hidden * usual_element_bytes,
          .max_tokens = options.max_tokens,
          .top_k = options.top_k,
          .num_experts = options.num_experts};
}

std::size_t first_heap_bytes(BufferPlan const& plan, int device, int num_ranks) {
  if (plan.heap_given) return plan.heap_bytes;
  CurrentDevice const current(device);
  std::size_t free = 0;
  std::size_t total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return std::min(plan.heap_bytes, free / 2 / static_cast<std::size_t>(num_ranks));
}

void check_on_gpu(DispatchArgs const& args, BufferInfo const& buffer, SmShare const& sms) {
  check_dispatch(args, buffer);
  check_memory(buffer.options.device, {{"x", args.x},
                                       {"scales", args.scales},
                                       {"topk_idx", args.topk_idx},
                                       {"topk_weights", args.topk_weights},
                                       {"token_in_rank", args.token_in_rank},
                                       {"received_per_expert", args.received_per_expert}});
  check_sms(args.num_sms, sms);
}

void check_on_gpu(CombineArgs const& args, BufferInfo const& buffer, SmShare const& sms) {
  check_combine(args, buffer);
  check_memory(buffer.options.device, {{"x", args.x},
                                       {"topk_weights", args.topk_weights},
                                       {"row_weights", args.row_weights},
                                       {"bias0", args.bias0},
                                       {"bias1", args.bias1},
                                       {"out", args.out}});
  check_sms(args.num_sms, sms);
}

Tensor copy_by_column(SymmetricHeap& heap, ConstTensorView const& scales, std::uintptr_t cuda_stream) {
  Tensor copy = room_by_column(heap, scales, Device::cuda);
  if (!copy.given()) return copy;
  check_cuda(launch_by_column({.from = static_cast<std::uint32_t const*>(scales.data),
                               .strides = {scales.stride(0), scales.stride(1)},
                               .rows = scales.size(0),
                               .columns = scales.size(1),
                               .to = copy.data<std::uint32_t>(),
                               .pitch = copy.view().stride(1)},
                              stream_of(cuda_stream)),
             "launching the kernel that copies scales");
  note_stream_use(copy.view().data, cuda_stream);
  return copy;
}

}  // namespace switchyard::cuda
