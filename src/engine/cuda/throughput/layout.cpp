// The host side of a layout without a dispatch.
#include "engine/cuda/throughput/engine.hpp"
#include "engine/cuda/throughput/launch.hpp"
#include "memory/device/cuda_check.hpp"

namespace switchyard::cuda {

void Engine::get_layout(LayoutCall const& call, Layout const& to, cudaStream_t caller) {
  CurrentDevice const current(options_.device);
  join(caller);
  latest_ = Call::layout;
  LayoutArgs args{};
  args.peers = peers_;
  args.experts = experts_;
  args.handle.num_tokens = call.topk_idx.size(0);
  args.handle.top_k = static_cast<int>(call.topk_idx.size(1));
  args.ids = view_of_ids(call.topk_idx);
  args.cut = cut(args.handle.num_tokens, call.workers);
  args.tokens_per_rank = to.num_tokens_per_rank.data<std::int32_t>();
  args.tokens_per_expert = to.num_tokens_per_expert.data<std::int32_t>();
  args.is_token_in_rank = to.is_token_in_rank.data<std::uint8_t>();
  check_cuda(launch_layout(args, stream_.get()), "launching the layout kernel");
}

}  // namespace switchyard::cuda
