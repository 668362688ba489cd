// Low-latency dispatch: the send half, the receive half, or both.
#include <algorithm>

#include "engine/cuda/kernels/launch_next.cuh"
#include "engine/cuda/kernels/ring_memory.cuh"
#include "engine/cuda/phases/slot_bulk.cuh"
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
  std::uint64_t loaded;  // barrier
  int failed;
};

template <bool bulk>
__device__ void prepare_barrier([[maybe_unused]] std::uint64_t* barrier) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (bulk) {
    if (threadIdx.x == 0) {
      ptx::barrier_init(barrier, 1);
      ptx::fence_barrier_init();
    }
  }
#endif
}

// Copies of a wave are there, before a flag says so, and the buffer is free for the next.
template <bool bulk>
__device__ void end_wave() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (bulk) {
    ptx::bulk_wait_all();
    __syncthreads();
  }
#endif
}

struct Sent {
  bool well;
  std::uint64_t masked;  // peers that nothing was sent to
};

// What a block has in dynamic shared memory: counts by stream, then rows for the copy engine.
struct SendRoom {
  StreamCounts counts;
  std::byte* buffer;
};

__device__ SendRoom room_of(SlotDispatchArgs const& args, std::uint32_t* shared) {
  int const streams = num_streams(args);
  return {.counts = {.total = shared, .before = shared + streams, .failed = nullptr},
          .buffer = align_ring(reinterpret_cast<std::byte*>(shared + 2 * streams))};
}

template <typename Payload>
__device__ Sent send_tokens(SlotDispatchArgs const& args, std::uint64_t epoch, SendRoom const& room) {
  __shared__ SendMemory memory;
  TokenRange const own = own_tokens(args);
  int const at_once = Payload::bulk ? min(tokens_at_once(args), args.buffer_rows) : tokens_at_once(args);
  auto const wave_from = [&](std::int64_t first, std::uint32_t parity) {
    return Wave{.expert = memory.expert,
                .stream = memory.stream,
                .position = memory.position,
                .row = memory.row,
                .scales = memory.scales,
                .at_first = {.expert = memory.first_expert, .tokens = tokens_at_once(args)},
                .buffer = room.buffer,
                .loaded = &memory.loaded,
                .parity = parity,
                .first = first,
                .tokens = static_cast<int>(min(static_cast<std::int64_t>(at_once), own.end - first))};
  };
  // Memory is slow: what is needed later is asked for first.
  std::uint64_t const early = look_early(args, args.at.credit);
  std::int64_t const first_id = ask_for_ids(args);
  prepare_barrier<Payload::bulk>(&memory.loaded);
  if (threadIdx.x == 0) memory.failed = 0;  // barriers follow
  StreamCounts const counts{.total = room.counts.total, .before = room.counts.before, .failed = &memory.failed};
  Wave wave = wave_from(own.begin, 0);
  Payload::ahead(args, wave);
  Attendance const credits =
      call_roll(args, args.frame,
                {.flags = args.at.credit, .epoch = epoch - 1, .phase = Phase::slots_credit, .early = early});
  if (credits.failed) return {.well = false, .masked = credits.masked};
  count_streams(args, own.begin, counts, memory.stream, wave.at_first, first_id);
  if (!args.rank_major) claim_rows(args, epoch, counts, credits.masked);
#pragma unroll 1
  for (std::int64_t first = own.begin; first < own.end; first += at_once) {
    if (first != own.begin) {
      wave = wave_from(first, wave.parity ^ 1);
      Payload::ahead(args, wave);
    }
    place_wave(args, wave, counts, epoch, credits.masked);
    Payload::send(args, wave);
    send_facts(args, wave);
    end_wave<Payload::bulk>();
  }
  __syncthreads();
  return {.well = memory.failed == 0, .masked = credits.masked};
}

// True in all threads of the block that goes on with the receive half.
template <typename Payload>
__device__ bool send_half(SlotDispatchArgs const& args, FrameState const& before, std::uint32_t* shared) {
  std::uint64_t const epoch = before.epoch + 1;
  if (blockIdx.x == 0) take_frame_over(args, before);
  SendRoom const room = room_of(args, shared);
  Sent const sent = send_tokens<Payload>(args, epoch, room);
  BlockEnd const end = end_block(slot_part<std::uint32_t>(args, args.peers.rank, args.at.scratch), sent.well);
  if (!end.last || !end.all_well) return false;
  // A peer that another block has masked got nothing from it.
  std::uint64_t const masked = args.mask_late ? sent.masked | masked_peers(args) : sent.masked;
  tell_frame(args, {.flags = args.at.arrived,
                    .epoch = epoch,
                    .masked = masked,
                    .rows = args.rank_major ? room.counts.total : nullptr});
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
  FrameState const state = *frame_state(args, args.frame);
  if (block_has_failed(args.peers)) return;
  bool const goes_on = !args.send || send_half<Payload>(args, state, stream_counts);
  // While rows are on their way.
  if (blockIdx.x == 0) give_frames_back(args);
  if (args.receive && goes_on) receive_rows(args, state.epoch + (args.send ? 1 : 0));
}

using Kernel = void (*)(SlotDispatchArgs);

Kernel cast_kernel(DType dtype) {
  switch (dtype) {
    case DType::bf16: return slot_dispatch_kernel<WideCast<Bf16>>;
    case DType::f16: return slot_dispatch_kernel<WideCast<F16>>;
    default: return slot_dispatch_kernel<WideCast<F32>>;
  }
}

Kernel kernel_for(SlotDispatchArgs const& args) {
  bool const wide = args.x.width == 16 && (args.scale_rows.bytes == 0 || args.scale_rows.width == 16);
  bool const bulk = wide && args.buffer_rows > 0;
  if (args.cast == SendCast::none)
    return bulk   ? slot_dispatch_kernel<BulkRows>
           : wide ? slot_dispatch_kernel<WideRows>
                  : slot_dispatch_kernel<AnyRows>;
  if (!wide) return slot_dispatch_kernel<AnyCast>;
  return cast_kernel(args.dtype);
}

std::size_t counts_bytes(SlotDispatchArgs const& args) {
  std::size_t const streams =
      static_cast<std::size_t>(args.rank_major ? args.peers.world : args.experts.num_experts());
  return args.send ? 2 * streams * sizeof(std::uint32_t) : 0;
}

cudaError_t load(Kernel kernel) {
  cudaFuncAttributes attributes;
  cudaError_t const loaded = cudaFuncGetAttributes(&attributes, kernel);
  return loaded != cudaSuccess ? loaded : allow_all_memory(kernel);
}

// Rows of a block's tokens that there is room for.
int rows_in_buffer(SlotDispatchArgs const& args, int blocks) {
  // No copy engine, or nothing to copy as it is.
  if (!starts_early() || !args.send || args.row_bytes == 0 || args.cast != SendCast::none) return 0;
  std::size_t const taken = counts_bytes(args) + ring_alignment;
  std::size_t const limit = dynamic_limit(slot_dispatch_kernel<BulkRows>);
  std::size_t const room = limit > taken ? (limit - taken) / args.row_bytes : 0;
  std::size_t const wanted = static_cast<std::size_t>((args.tokens + blocks - 1) / blocks);
  return static_cast<int>(std::min(room, wanted));
}

}  // namespace

cudaError_t launch_slot_dispatch(SlotDispatchArgs& args, int blocks, cudaStream_t stream) {
  args.buffer_rows = rows_in_buffer(args, blocks);
  std::size_t const buffer = static_cast<std::size_t>(args.buffer_rows) * args.row_bytes;
  std::size_t const shared = counts_bytes(args) + (buffer > 0 ? buffer + ring_alignment : 0);
  return launch_next(kernel_for(args), args, {blocks, slot_threads, shared}, stream);
}

cudaError_t load_slot_dispatch() {
  for (Kernel const kernel : {slot_dispatch_kernel<BulkRows>, slot_dispatch_kernel<WideRows>,
                              slot_dispatch_kernel<AnyRows>, slot_dispatch_kernel<AnyCast>,
                              cast_kernel(DType::bf16), cast_kernel(DType::f16), cast_kernel(DType::f32)}) {
    if (cudaError_t const error = load(kernel); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace switchyard::cuda
