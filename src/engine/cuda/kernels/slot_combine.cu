// Low-latency combine: the send half, the receive half, or both.
#include "engine/cuda/kernels/launch_next.cuh"
#include "engine/cuda/phases/slot_logfmt.cuh"
#include "engine/cuda/slot_launch.hpp"

namespace switchyard::cuda {

namespace {

struct SumMemory {
  std::byte const* row[slot_threads];
  float weight[slot_threads];
  int count[slot_threads];
  int rank[slot_threads];
};

// The outputs of this rank are in its frame; peers hear of it.
__device__ void send_outputs(SlotCombineArgs const& args, std::uint64_t epoch) {
  if (args.x == nullptr) {
    // What earlier kernels wrote is there for this one, and so for whoever acquires what it releases.
    if (blockIdx.x == 0) tell_frame(args, args.at.ready, epoch, nullptr);
    return;
  }
  if (args.coding == CombineCoding::none) {
    copy_outputs(args);
  } else if (args.dtype == DType::bf16) {
    encode_outputs<Bf16>(args);
  } else {
    encode_outputs<F16>(args);
  }
  if (is_last_block<Readers::peers>(slot_part<std::uint32_t>(args, args.peers.rank, args.at.scratch)))
    tell_frame(args, args.at.ready, epoch, nullptr);
}

template <typename Element>
__device__ void sum_by_coding(SlotCombineArgs const& args, Sources const& sources) {
  if (args.coding == CombineCoding::logfmt10) {
    sum_wave<Element, Logfmt>(args, sources);
  } else if (args.width == 16) {
    sum_wave<Element, Plain<Element, uint4>>(args, sources);
  } else {
    sum_wave<Element, Plain<Element, std::uint16_t>>(args, sources);
  }
}

__device__ void sum_tokens(SlotCombineArgs const& args, std::uint64_t masked) {
  __shared__ SumMemory memory;
  TokenRange const own = own_tokens(args);
  int const at_once = tokens_at_once(args);
  for (std::int64_t first = own.begin; first < own.end; first += at_once) {
    Sources const sources{.row = memory.row,
                          .weight = memory.weight,
                          .count = memory.count,
                          .first = first,
                          .tokens = static_cast<int>(min(static_cast<std::int64_t>(at_once), own.end - first))};
    find_sources(args, sources, masked, memory.rank);
    if (args.dtype == DType::bf16) {
      sum_by_coding<Bf16>(args, sources);
    } else {
      sum_by_coding<F16>(args, sources);
    }
  }
}

__global__ void __launch_bounds__(slot_threads, 1)
    slot_combine_kernel(__grid_constant__ SlotCombineArgs const args) {
  ptx::wait_for_kernel_before();
  if (block_has_failed(args.peers)) return;
  std::uint64_t const epoch = frame_state(args, args.frame)->epoch;
  if (blockIdx.x == 0) give_frames_back(args, false);
  if (args.send) send_outputs(args, epoch);
  if (!args.receive) return;
  Attendance const all = call_roll(args, {.flags = args.at.ready,
                                          .epoch = epoch,
                                          .phase = Phase::slots_ready,
                                          .check = true,
                                          .account = blockIdx.x == 0});
  if (!all.failed) sum_tokens(args, all.masked);
}

}  // namespace

cudaError_t launch_slot_combine(SlotCombineArgs const& args, int blocks, cudaStream_t stream) {
  return launch_next(slot_combine_kernel, args, {blocks, slot_threads, 0}, stream);
}

cudaError_t load_slot_combine() {
  cudaFuncAttributes attributes;
  return cudaFuncGetAttributes(&attributes, slot_combine_kernel);
}

}  // namespace switchyard::cuda
