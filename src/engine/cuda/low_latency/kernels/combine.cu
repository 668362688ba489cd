// The low-latency combine kernel: the send half, the receive half, or both.
#include "engine/cuda/device/grid.cuh"
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/device/signal.cuh"
#include "engine/cuda/low_latency/kernels/credit.cuh"
#include "engine/cuda/low_latency/kernels/logfmt.cuh"
#include "engine/cuda/low_latency/kernels/outputs.cuh"
#include "engine/cuda/low_latency/kernels/sum.cuh"
#include "engine/cuda/low_latency/kernels/waiting.cuh"
#include "engine/cuda/low_latency/launch.hpp"

namespace switchyard::cuda {

namespace {

struct SumMemory {
  std::byte const* row[slot_threads];
  float weight[slot_threads];
  int count[slot_threads];
  int rank[slot_threads];
};

// How outputs get into a frame, and out of it again: as they are by 16-byte accesses, as they are, or coded.
template <typename Element>
struct Wide {
  using Elements = Element;
  using Outputs = WideOutputs<Element>;
  __device__ static void put(SlotCombineArgs const& args) { copy_outputs<uint4>(args); }
};

template <typename Element>
struct Any {
  using Elements = Element;
  using Outputs = AnyOutputs<Element>;
  __device__ static void put(SlotCombineArgs const& args) { copy_outputs<std::uint16_t>(args); }
};

template <typename Element>
struct Coded {
  using Elements = Element;
  using Outputs = CodedOutputs;
  __device__ static void put(SlotCombineArgs const& args) { encode_outputs<Element>(args); }
};

// A combine: the epoch of its dispatch, and how many combines of that came before.
struct CombineOrder {
  std::uint64_t epoch;
  std::uint32_t earlier;
};

// `repeats`: whether other combines may have come before, which FrameState counts. The first combine, which is what
// decoding waits for, has a kernel without any of that.
template <bool repeats>
__device__ CombineOrder order_of(SlotCombineArgs const& args) {
  FrameState const* const state = frame_state(args, args.frame);
  CombineOrder order{.epoch = state->epoch, .earlier = 0};
  // Only then, for without repeats another block may write it meanwhile.
  if constexpr (repeats) order.earlier = args.send ? state->combines : state->combines - 1;
  return order;
}

// Threads 0..num_ranks-1 of one block call this after a barrier of the block. Each publishes the combine's word to
// its peer, in one of the arrays of flags, unless that peer is masked.
__device__ void publish_combine(SlotCombineArgs const& args, CombineOrder const& order, std::size_t flags,
                                bool masked) {
  int const peer = static_cast<int>(threadIdx.x);
  if (peer >= args.peers.num_ranks || masked) return;
  // Pairs with the load_acquire() in wait_word().
  signal_peer(args.waiting, &frame_flag(args, flags, args.frame, peer, args.peers.rank)->epoch,
              word_of_combine(args, order.epoch, order.earlier).value);
}

// All threads of a block call this in a combine after the first: outputs that peers still read for the combine
// before must not be overwritten, nor a word that they still wait for. The kernel that read for this rank has
// ended, so its loads come before the word that the first block releases; each block acquires the words of the
// peers before it writes. Returns false when the call has failed.
__device__ bool meet_readers(SlotCombineArgs const& args, CombineOrder const& order, EarlyLoads const& early) {
  if (blockIdx.x == 0) publish_combine(args, order, args.at.read, early.masked != 0);
  PeerStatus const all = wait_for_peers(args, args.frame,
                                        {.flags = args.at.read,
                                         .word = word_of_combine(args, order.epoch, order.earlier),
                                         .point = WaitPoint::slots_read},
                                        load_early(args, args.frame, args.at.read));
  return !all.failed;
}

// Brings the outputs of this rank into its frame. Returns false when the call has failed.
template <typename Way, bool repeats>
__device__ bool send_half(SlotCombineArgs const& args, CombineOrder const& order, EarlyLoads const& early) {
  if constexpr (repeats) {
    if (order.earlier > 0 && !meet_readers(args, order, early)) return false;
  }
  bool last = blockIdx.x == 0;
  if (args.x != nullptr) Way::put(args);
  // Where blocks read FrameState::combines, the last one counts it up: by then all have read it.
  if (args.x != nullptr || repeats)
    last = is_last_block<Readers::peers>(slot_part<std::uint32_t>(args, args.peers.rank, args.at.scratch));
  if (!last) return true;
  // What earlier kernels wrote is visible to this one, and so to whoever acquires what it releases.
  publish_combine(args, order, args.at.ready, early.masked != 0);
  if (threadIdx.x == 0) frame_state(args, args.frame)->combines = order.earlier + 1;
  return true;
}

// Tokens whose rows are summed at a time, and what this thread has loaded of its slot of them.
struct SumWave {
  std::int64_t first;
  int tokens;
  LoadedSlot slot;
};

// The wave from `first` on. A kernel that does not receive loads nothing.
__device__ SumWave load_wave(SlotCombineArgs const& args, std::int64_t first, std::int64_t end) {
  if (!args.receive) return {0, 0, {-1, -1, 0}};
  auto const tokens = static_cast<int>(min(static_cast<std::int64_t>(tokens_at_once(args)), end - first));
  return {first, tokens, load_slot(args, first, tokens)};
}

// Waits for the outputs of all peers, and sums the rows of the block's tokens.
template <typename Way>
__device__ void receive_half(SlotCombineArgs const& args, CombineOrder const& order, SumWave wave,
                             std::int64_t end) {
  __shared__ SumMemory memory;
  auto const sources_of = [&](SumWave const& of) {
    return Sources{
        .row = memory.row, .weight = memory.weight, .count = memory.count, .first = of.first, .tokens = of.tokens};
  };
  // This is done while peers' words are on their way. If peers turn out to be masked, it is done again.
  find_sources(args, sources_of(wave), wave.slot, 0, memory.rank);
  PeerStatus const all = wait_for_peers(args, args.frame,
                                        {.flags = args.at.ready,
                                         .word = word_of_combine(args, order.epoch, order.earlier),
                                         .point = WaitPoint::slots_ready,
                                         .measures = blockIdx.x == 0},
                                        load_early(args, args.frame, args.at.ready));
  if (all.failed) return;
  if (all.masked != 0) find_sources(args, sources_of(wave), wave.slot, all.masked, memory.rank);
#pragma unroll 1
  while (true) {
    sum_wave<typename Way::Elements, typename Way::Outputs>(args, sources_of(wave));
    if (wave.first + wave.tokens >= end) return;
    wave = load_wave(args, wave.first + wave.tokens, end);
    find_sources(args, sources_of(wave), wave.slot, all.masked, memory.rank);
  }
}

template <typename Way, bool repeats>
__global__ void __launch_bounds__(slot_threads, 1)
    slot_combine_kernel(__grid_constant__ SlotCombineArgs const args) {
  ptx::wait_for_kernel_before();
  // Memory is slow, so what is needed later is loaded first.
  CombineOrder const order = order_of<repeats>(args);
  EarlyLoads const early = load_early(args);
  TokenRange const own = own_tokens(args);
  SumWave const wave = load_wave(args, own.begin, own.end);
  if (any_thread(early.failed != 0)) return;
  if (args.send && !send_half<Way, repeats>(args, order, early)) return;
  // This call's own frame is held, so it is not among them.
  if (blockIdx.x == gridDim.x - 1) give_frames_back(args);
  if (args.receive) receive_half<Way>(args, order, wave, own.end);
}

using Kernel = void (*)(SlotCombineArgs);

template <template <typename> typename Way>
Kernel kernel_of(DType dtype, bool repeats) {
  if (repeats)
    return dtype == DType::bf16 ? slot_combine_kernel<Way<Bf16>, true> : slot_combine_kernel<Way<F16>, true>;
  return dtype == DType::bf16 ? slot_combine_kernel<Way<Bf16>, false> : slot_combine_kernel<Way<F16>, false>;
}

Kernel kernel_for(SlotCombineArgs const& args) {
  if (args.coding == CombineCoding::logfmt10) return kernel_of<Coded>(args.dtype, args.may_repeat);
  return args.width == 16 ? kernel_of<Wide>(args.dtype, args.may_repeat)
                          : kernel_of<Any>(args.dtype, args.may_repeat);
}

}  // namespace

cudaError_t launch_slot_combine(SlotCombineArgs const& args, int blocks, cudaStream_t stream) {
  return launch_next(kernel_for(args), args, {blocks, slot_threads, 0}, stream);
}

cudaError_t load_slot_combine() {
  for (DType const dtype : {DType::bf16, DType::f16}) {
    for (bool const repeats : {false, true}) {
      for (Kernel const kernel :
           {kernel_of<Wide>(dtype, repeats), kernel_of<Any>(dtype, repeats), kernel_of<Coded>(dtype, repeats)}) {
        if (cudaError_t const error = load_kernel(kernel); error != cudaSuccess) return error;
      }
    }
  }
  return cudaSuccess;
}

}  // namespace switchyard::cuda
