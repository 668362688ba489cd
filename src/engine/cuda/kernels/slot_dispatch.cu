// Low-latency dispatch: the send half, the receive half, or both.
#include "engine/cuda/kernels/launch_next.cuh"
#include "engine/cuda/phases/slot_cast.cuh"
#include "engine/cuda/phases/slot_receive.cuh"
#include "engine/cuda/slot_launch.hpp"

namespace switchyard::cuda {

namespace {

struct SendMemory {
  int expert[slot_threads];
  int stream[slot_threads];
  int position[slot_threads];
  int first_expert[slot_threads];
  std::byte* row[slot_threads];
  std::byte* scales[slot_threads];
};

struct Sent {
  bool well;
  std::uint64_t masked;  // peers that nothing was sent to
};

template <typename Payload>
__device__ Sent send_tokens(SlotDispatchArgs const& args, std::uint64_t epoch, StreamCounts const& counts) {
  __shared__ SendMemory memory;
  TokenRange const own = own_tokens(args);
  // Memory is slow: what is needed later is asked for first.
  std::int64_t const first_id = ask_for_ids(args);
  fetch_rows(args.x, own);
  Attendance const credits = call_roll(args, {.flags = args.at.credit,
                                              .epoch = epoch - 1,
                                              .phase = Phase::slots_credit,
                                              .check = false,
                                              .account = false});
  if (credits.failed) return {.well = false, .masked = credits.masked};
  int const at_once = tokens_at_once(args);
  FirstSlots const at_first{.expert = memory.first_expert, .tokens = at_once};
  count_streams(args, own.begin, counts, memory.stream, at_first, first_id);
  if (!args.rank_major) claim_rows(args, epoch, counts, credits.masked);
#pragma unroll 1
  for (std::int64_t first = own.begin; first < own.end; first += at_once) {
    Wave const wave{.expert = memory.expert,
                    .stream = memory.stream,
                    .position = memory.position,
                    .row = memory.row,
                    .scales = memory.scales,
                    .at_first = at_first,
                    .first = first,
                    .tokens = static_cast<int>(min(static_cast<std::int64_t>(at_once), own.end - first))};
    place_wave(args, wave, counts, epoch, credits.masked);
    Payload::send(args, wave);
    send_facts(args, wave);
  }
  return {.well = true, .masked = credits.masked};
}

// True in all threads of the block that goes on with the receive half.
template <typename Payload>
__device__ bool send_half(SlotDispatchArgs const& args, std::uint64_t epoch, std::uint32_t* shared) {
  if (blockIdx.x == 0) give_frames_back(args, Due::of_this_call);
  StreamCounts const counts{.total = shared, .before = shared + num_streams(args)};
  Sent const sent = send_tokens<Payload>(args, epoch, counts);
  BlockEnd const end = end_block(slot_part<std::uint32_t>(args, args.peers.rank, args.at.scratch), sent.well);
  if (!end.last || !end.all_well) return false;
  tell_frame(args, {.flags = args.at.arrived,
                    .epoch = epoch,
                    .masked = sent.masked,
                    .rows = args.rank_major ? counts.total : nullptr});
  if (threadIdx.x == 0) {
    FrameState* const state = frame_state(args, args.frame);
    state->epoch = epoch;
    state->captured = args.captured ? 1 : 0;
  }
  return true;
}

template <typename Payload>
__global__ void __launch_bounds__(slot_threads, 1)
    slot_dispatch_kernel(__grid_constant__ SlotDispatchArgs const args) {
  extern __shared__ std::uint32_t stream_counts[];
  ptx::wait_for_kernel_before();
  std::uint64_t const epoch = frame_state(args, args.frame)->epoch + (args.send ? 1 : 0);
  if (block_has_failed(args.peers)) return;
  bool const goes_on = !args.send || send_half<Payload>(args, epoch, stream_counts);
  // While rows are on their way.
  if (blockIdx.x == 0) give_frames_back(args, Due::others);
  if (args.receive && goes_on) receive_rows(args, epoch);
}

using Kernel = void (*)(SlotDispatchArgs);

Kernel kernel_for(SlotDispatchArgs const& args) {
  bool const wide = args.x.width == 16 && (args.scale_rows.bytes == 0 || args.scale_rows.width == 16);
  if (args.cast == SendCast::none) return wide ? slot_dispatch_kernel<WideRows> : slot_dispatch_kernel<AnyRows>;
  if (!wide) return slot_dispatch_kernel<AnyCast>;
  switch (args.dtype) {
    case DType::bf16: return slot_dispatch_kernel<WideCast<Bf16>>;
    case DType::f16: return slot_dispatch_kernel<WideCast<F16>>;
    default: return slot_dispatch_kernel<WideCast<F32>>;
  }
}

cudaError_t load(Kernel kernel) {
  cudaFuncAttributes attributes;
  cudaError_t const loaded = cudaFuncGetAttributes(&attributes, kernel);
  if (loaded != cudaSuccess) return loaded;
  int device = 0;
  int most = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  // A permission only.
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              most - static_cast<int>(attributes.sharedSizeBytes));
}

}  // namespace

cudaError_t launch_slot_dispatch(SlotDispatchArgs const& args, int blocks, cudaStream_t stream) {
  return launch_next(kernel_for(args), args, {blocks, slot_threads, slot_dispatch_shared_bytes(args)}, stream);
}

std::size_t slot_dispatch_shared_bytes(SlotDispatchArgs const& args) {
  std::size_t const streams =
      static_cast<std::size_t>(args.rank_major ? args.peers.world : args.experts.num_experts());
  return args.send ? 2 * streams * sizeof(std::uint32_t) : 0;
}

cudaError_t load_slot_dispatch() {
  for (Kernel const kernel : {slot_dispatch_kernel<WideRows>, slot_dispatch_kernel<AnyRows>,
                              slot_dispatch_kernel<AnyCast>, slot_dispatch_kernel<WideCast<Bf16>>,
                              slot_dispatch_kernel<WideCast<F16>>, slot_dispatch_kernel<WideCast<F32>>}) {
    if (cudaError_t const error = load(kernel); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace switchyard::cuda
