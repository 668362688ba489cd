#include "engine/cuda/low_latency/call_checks.hpp"

#include "base/check.hpp"

namespace switchyard::cuda {

void check_gpu_call(LowLatencyDispatchArgs const& args, LowLatencyInfo const& info, SmShare const& sms) {
  check_low_latency_dispatch(args, info);
  check_memory(info.options.device, {{"x", args.x},
                                     {"scales", args.scales},
                                     {"topk_idx", args.topk_idx},
                                     {"topk_weights", args.topk_weights},
                                     {"received_per_expert", args.received_per_expert},
                                     {"counts", args.counts},
                                     {"wait_ns_per_source", args.wait_ns_per_source}});
  check_sms(args.num_sms, sms);
}

void check_gpu_call(LowLatencyCombineArgs const& args, LowLatencyInfo const& info, SmShare const& sms) {
  check_low_latency_combine(args, info);
  check_memory(info.options.device, {{"x", args.x},
                                     {"topk_weights", args.topk_weights},
                                     {"out", args.out},
                                     {"wait_ns_per_source", args.wait_ns_per_source}});
  check_sms(args.num_sms, sms);
}

void check_turn(LowLatencyCombineArgs const& args, LowLatencyInfo const& info, std::uint64_t dispatches,
                void const* outputs) {
  check_latest(args.handle, info, dispatches);
  check_coding(args, outputs);
  detail::Lease const& lease = *args.handle.lease();
  require(lease.received, "handle: expected one of a dispatch whose receive half is done, seen one before it");
  require(lease.combine_received,
          "handle: expected one whose last combine's receive half is done, seen one before it");
}

void throw_bad_slot(std::int64_t token, std::int64_t slot, SlotSizes const& sizes) {
  throw InvalidArgument(fmt::format(
      "topk_idx[{}, {}] of an earlier call: expected -1 or 0..{}, and at most max_tokens = {} rows for an "
      "expert, of which an id that repeats within a token is one each; the slot counted as not used",
      token, slot, sizes.num_experts - 1, sizes.max_tokens));
}

}  // namespace switchyard::cuda
