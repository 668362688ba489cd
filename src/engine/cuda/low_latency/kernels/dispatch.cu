// The low-latency dispatch kernel: the send half, the receive half, or both.
#include <algorithm>

#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/low_latency/kernels/bulk.cuh"
#include "engine/cuda/low_latency/kernels/cast.cuh"
#include "engine/cuda/low_latency/kernels/claim.cuh"
#include "engine/cuda/low_latency/kernels/count.cuh"
#include "engine/cuda/low_latency/kernels/credit.cuh"
#include "engine/cuda/low_latency/kernels/peer_bays.cuh"
#include "engine/cuda/low_latency/kernels/place.cuh"
#include "engine/cuda/low_latency/kernels/receive.cuh"
#include "engine/cuda/low_latency/kernels/rows.cuh"
#include "engine/cuda/low_latency/kernels/waiting.cuh"
#include "engine/cuda/low_latency/launch.hpp"
#include "layout/topology.hpp"

namespace switchyard::cuda {

namespace {

// Static shared memory of a send half.
struct SendMemory {
  int expert[slot_threads];
  int stream[slot_threads];
  int position[slot_threads];
  std::byte* row[slot_threads];
  std::byte* scales[slot_threads];
  std::uint64_t loaded;  // barrier of the loads into SendRoom::buffer
  PeerBays bays;
  int failed;
  int repeats;
};

template <bool bulk>
__device__ void prepare_barrier([[maybe_unused]] std::uint64_t* barrier) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (bulk) {
    if (threadIdx.x == 0) {
      ptx::barrier_init(barrier, 1);
      ptx::fence_proxy_async_shared();
    }
  }
#endif
}

// Afterwards the copies of a wave have arrived, so that a word may say so, and the buffer is free for the next
// wave.
template <bool bulk>
__device__ void end_wave() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (bulk) {
    ptx::bulk_wait_all();
    __syncthreads();
  }
#endif
}

// What a block has in dynamic shared memory: arrays by stream, then rows for the copy engine.
struct SendRoom {
  StreamRows rows;
  std::byte* buffer;
};

inline constexpr std::size_t stream_bytes = sizeof(uint4) + 2 * sizeof(std::uint32_t);

__device__ SendRoom room_of(SlotDispatchArgs const& args, uint4* shared, SendMemory& memory) {
  int const streams = num_streams(args);
  auto* const totals = reinterpret_cast<std::uint32_t*>(shared + streams);
  return {.rows = {.bits = shared,
                   .total = totals,
                   .before = totals + streams,
                   .failed = &memory.failed,
                   .repeats = &memory.repeats,
                   .one_batch = args.tokens <= batch_tokens,
                   .repeated = false},
          .buffer = align_ring(reinterpret_cast<std::byte*>(totals + 2 * streams))};
}

// rank_major: one block publishes how many rows each receiver gets.
__device__ void publish_counts(SlotDispatchArgs const& args, std::uint64_t epoch, StreamRows const& rows,
                               LocalRankMask masked) {
  int const peer = static_cast<int>(threadIdx.x);
  if (peer >= args.peers.num_ranks || (masked >> peer & 1) != 0) return;
  // Relaxed: the same thread publishes the word of this block afterwards, with a release. Pairs with the
  // load_relaxed() in rows_word().
  ptx::store_relaxed(&frame_flag(args, args.at.arrived, args.frame, peer, args.peers.rank)->rows,
                     epoch << 32 | rows.total_of(peer));
}

// Threads 0..num_ranks-1 of a block call this after a barrier of the block. Each publishes to its peer, unless that
// is masked, that the rows of this block have arrived there.
__device__ void publish_rows(SlotDispatchArgs const& args, std::uint64_t epoch, LocalRankMask masked) {
  int const peer = static_cast<int>(threadIdx.x);
  if (peer >= args.peers.num_ranks || (masked >> peer & 1) != 0) return;
  // Pairs with the load_acquire() in blocks_have_arrived().
  signal_peer(args.waiting, block_words(args, args.frame, peer, args.peers.rank) + blockIdx.x,
              published_word(args, epoch, gridDim.x));
}

// The waves in which a block sends its tokens.
template <typename Sender>
class Waves {
 public:
  __device__ Waves(SlotDispatchArgs const& args, SendMemory& memory, std::byte* buffer)
      : own_(own_tokens(args)),
        at_once_(Sender::bulk ? min(tokens_at_once(args), args.buffer_rows) : tokens_at_once(args)),
        wave_{.expert = memory.expert,
              .stream = memory.stream,
              .position = memory.position,
              .row = memory.row,
              .scales = memory.scales,
              .buffer = buffer,
              .loaded = &memory.loaded,
              .parity = 0,
              .first = own_.begin,
              .tokens = tokens_from(own_.begin)} {}

  [[nodiscard]] __device__ Wave const& now() const { return wave_; }
  [[nodiscard]] __device__ std::int64_t batch() const { return wave_.first / batch_tokens; }
  [[nodiscard]] __device__ bool over() const { return wave_.tokens <= 0; }
  __device__ void advance() {
    wave_.first += wave_.tokens;
    wave_.tokens = tokens_from(wave_.first);
    wave_.parity ^= 1U;
  }

 private:
  // The tokens of a wave are of one batch.
  [[nodiscard]] __device__ int tokens_from(std::int64_t first) const {
    std::int64_t const of_batch = batch_tokens - first % batch_tokens;
    return static_cast<int>(min(min(static_cast<std::int64_t>(at_once_), of_batch), own_.end - first));
  }

  TokenRange own_;
  int at_once_;
  Wave wave_;
};

// The result of a block's sends.
struct Sent {
  bool ok;
  LocalRankMask masked;  // peers that nothing was sent to
};

// `own` is this thread's slot of the first wave.
template <typename Sender>
__device__ void send_waves(SlotDispatchArgs const& args, Waves<Sender>& waves, StreamRows const& rows, OwnSlot own,
                           SendState const& state) {
#pragma unroll 1
  while (!waves.over()) {
    Wave const& wave = waves.now();
    place_wave(args, wave, own, state, rows.failed);
    Sender::send(args, wave);
    send_metadata(args, wave, *state.bays);
    end_wave<Sender::bulk>();
    std::int64_t const batch = waves.batch();
    waves.advance();
    if (waves.over()) return;
    std::int64_t const id = load_own_id(args, wave.first, wave.tokens);
    Sender::prepare(args, wave);
    if (waves.batch() != batch) advance_to_batch(args, rows, waves.batch());
    own = number_wave(args, wave, rows, id);
  }
}

template <typename Sender>
__device__ Sent send_tokens(SlotDispatchArgs const& args, FrameState const& before, uint4* shared) {
  __shared__ SendMemory memory;
  SendRoom room = room_of(args, shared, memory);
  Waves<Sender> waves(args, memory, room.buffer);
  // Memory is slow, so what is needed later is loaded first.
  std::int64_t const first_id = load_own_id_of_batch(args, 0);
  std::int64_t const own_id = load_own_id(args, waves.now().first, waves.now().tokens);
  prepare_barrier<Sender::bulk>(&memory.loaded);
  clear_bits(args, room.rows);
  if (threadIdx.x == 0) memory.failed = memory.repeats = 0;
  __syncthreads();
  Sender::prepare(args, waves.now());
  EarlyLoads const early = load_early(args, args.frame, args.at.credit);
  mark_batch(args, room.rows, 0, first_id);
  if (blockIdx.x == 0 && !any_thread(early.failed != 0)) take_frame_over(args, before);
  PeerStatus const credits = wait_for_peers(
      args, args.frame,
      {.flags = args.at.credit, .word = word_of_credit(before.epoch), .point = WaitPoint::slots_credit}, early,
      NoteBay{args, memory.bays});
  if (credits.failed) {
    Sender::abandon(waves.now());
    return {.ok = false, .masked = credits.masked};
  }
  count_all(args, waves.batch(), room.rows);
  Claim const claim = start_first_claim(args, room.rows, credits.masked);
  OwnSlot const own = number_wave(args, waves.now(), room.rows, own_id);
  SendState const state{.epoch = before.epoch + 1, .masked = credits.masked, .bays = &memory.bays};
  finish_claims(args, room.rows, claim, state);
  if (args.rank_major && blockIdx.x == 0) publish_counts(args, state.epoch, room.rows, credits.masked);
  send_waves(args, waves, room.rows, own, state);
  __syncthreads();
  return {.ok = memory.failed == 0, .masked = credits.masked};
}

// One thread of each block calls this, and the last one moves the frame on. By then all blocks have read the
// frame's state: each block releases its reads in the addition, and the last block's addition acquires them.
__device__ void end_send(SlotDispatchArgs const& args, std::uint64_t epoch) {
  // A combine has another counter, which its blocks may leave as it is when the call fails.
  auto* const counter = slot_part<std::uint32_t>(args, args.peers.rank, args.at.scratch) + 1;
  if (ptx::add_acq_rel(counter, 1) + 1 != gridDim.x) return;
  *counter = 0;  // for the next kernel in the stream
  FrameState* const state = frame_state(args, args.frame);
  state->epoch = epoch;
  state->captured = args.captured ? 1 : 0;
  state->combines = 0;
  state->bay = static_cast<std::uint32_t>(args.bay);
}

// Returns false when the block has failed.
template <typename Sender>
__device__ bool send_half(SlotDispatchArgs const& args, FrameState const& before, uint4* shared) {
  std::uint64_t const epoch = before.epoch + 1;
  Sent const sent = send_tokens<Sender>(args, before, shared);
  if (sent.ok) publish_rows(args, epoch, sent.masked);
  // This thread has no peer that it publishes to.
  if (threadIdx.x == slot_threads - 1) end_send(args, epoch);
  return sent.ok;
}

template <typename Sender>
__global__ void __launch_bounds__(slot_threads, 1)
    slot_dispatch_kernel(__grid_constant__ SlotDispatchArgs const args) {
  extern __shared__ uint4 room[];
  ptx::wait_for_kernel_before();
  FrameState state{};
  if (blockIdx.x == 0) {
    state = *frame_state(args, args.frame);
  } else {
    state.epoch = frame_state(args, args.frame)->epoch;  // the first block may write the rest
  }
  if (args.send) {
    if (!send_half<Sender>(args, state, room)) return;
  } else if (block_has_failed(args.peers)) {
    return;
  }
  // This is done while rows are on their way, and by another block than the one that receives, if there are two.
  if (blockIdx.x == 0) give_frames_back(args);
  if (args.receive && blockIdx.x == gridDim.x - 1) receive_rows(args, state.epoch + (args.send ? 1 : 0));
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
  int const streams = args.rank_major ? args.peers.num_ranks : args.experts.num_experts();
  return args.send ? static_cast<std::size_t>(streams) * stream_bytes : 0;
}

cudaError_t load(Kernel kernel) {
  cudaError_t const loaded = load_kernel(kernel);
  return loaded != cudaSuccess ? loaded : allow_all_memory(kernel);
}

// How many rows of a block's tokens there is room for.
int rows_in_buffer(SlotDispatchArgs const& args, int blocks) {
  // There is no copy engine, or nothing that is copied as it is.
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

int most_slot_experts() {
  std::size_t const limit = dynamic_limit(slot_dispatch_kernel<BulkRows>);
  std::size_t const counted = (limit - std::min(limit, ring_alignment)) / stream_bytes;
  return static_cast<int>(std::min(counted, std::size_t{1} << slot_expert_bits));
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
