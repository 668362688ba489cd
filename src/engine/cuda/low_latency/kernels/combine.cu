// Low-latency combine: the send half, the receive half, or both.
#include "engine/cuda/device/launch_next.cuh"
#include "engine/cuda/low_latency/kernels/logfmt.cuh"
#include "engine/cuda/low_latency/launch.hpp"

namespace switchyard::cuda {

namespace {

struct SumMemory {
  std::byte const* row[slot_threads];
  float weight[slot_threads];
  int count[slot_threads];
  int rank[slot_threads];
};

// How outputs get into a frame, and out of it again.
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

// The outputs of this rank are in its frame; peers hear of it.
template <typename Way>
__device__ void send_outputs(SlotCombineArgs const& args, std::uint64_t epoch, EarlyLook const& look) {
  bool last = blockIdx.x == 0;
  if (args.x != nullptr) {
    Way::put(args);
    last = is_last_block<Readers::peers>(slot_part<std::uint32_t>(args, args.peers.rank, args.at.scratch));
  }
  // What earlier kernels wrote is there for this one, and so for whoever acquires what it releases.
  if (last) tell_outputs(args, epoch, look.masked != 0);
}

// Tokens whose rows are summed up together, and what is known of this thread's slot of them.
struct SumWave {
  std::int64_t first;
  int tokens;
  AskedSlot slot;
};

// The wave from `first` on; nothing is on its way when a kernel does not receive.
__device__ SumWave ask_for_wave(SlotCombineArgs const& args, std::int64_t first, std::int64_t end) {
  if (!args.receive) return {0, 0, {-1, -1, 0}};
  auto const tokens = static_cast<int>(min(static_cast<std::int64_t>(tokens_at_once(args)), end - first));
  return {first, tokens, ask_for_slot(args, first, tokens)};
}

template <typename Way>
__device__ void sum_tokens(SlotCombineArgs const& args, std::uint64_t epoch, SumWave wave, std::int64_t end) {
  __shared__ SumMemory memory;
  auto const sources_of = [&](SumWave const& of) {
    return Sources{
        .row = memory.row, .weight = memory.weight, .count = memory.count, .first = of.first, .tokens = of.tokens};
  };
  // While peers' words are on their way.
  find_sources(args, sources_of(wave), wave.slot, 0, memory.rank);
  Attendance const all = call_roll(args, args.frame,
                                   {.flags = args.at.ready,
                                    .word = word_of_call(args, epoch),
                                    .phase = Phase::slots_ready,
                                    .account = blockIdx.x == 0},
                                   look_at(args, args.frame, args.at.ready));
  if (all.failed) return;
  if (all.masked != 0) find_sources(args, sources_of(wave), wave.slot, all.masked, memory.rank);
#pragma unroll 1
  while (true) {
    sum_wave<typename Way::Elements, typename Way::Outputs>(args, sources_of(wave));
    if (wave.first + wave.tokens >= end) return;
    wave = ask_for_wave(args, wave.first + wave.tokens, end);
    find_sources(args, sources_of(wave), wave.slot, all.masked, memory.rank);
  }
}

template <typename Way>
__global__ void __launch_bounds__(slot_threads, 1)
    slot_combine_kernel(__grid_constant__ SlotCombineArgs const args) {
  ptx::wait_for_kernel_before();
  // Memory is slow: what is needed later is asked for first.
  std::uint64_t const epoch = frame_state(args, args.frame)->epoch;
  EarlyLook const look = look_around(args);
  TokenRange const own = own_tokens(args);
  SumWave const wave = ask_for_wave(args, own.begin, own.end);
  if (any_thread(look.failed != 0)) return;
  if (args.send) send_outputs<Way>(args, epoch, look);
  // Its own frame is held.
  if (blockIdx.x == gridDim.x - 1) give_frames_back(args);
  if (args.receive) sum_tokens<Way>(args, epoch, wave, own.end);
}

using Kernel = void (*)(SlotCombineArgs);

template <template <typename> typename Way>
Kernel kernel_of(DType dtype) {
  return dtype == DType::bf16 ? slot_combine_kernel<Way<Bf16>> : slot_combine_kernel<Way<F16>>;
}

Kernel kernel_for(SlotCombineArgs const& args) {
  if (args.coding == CombineCoding::logfmt10) return kernel_of<Coded>(args.dtype);
  return args.width == 16 ? kernel_of<Wide>(args.dtype) : kernel_of<Any>(args.dtype);
}

}  // namespace

cudaError_t launch_slot_combine(SlotCombineArgs const& args, int blocks, cudaStream_t stream) {
  return launch_next(kernel_for(args), args, {blocks, slot_threads, 0}, stream);
}

cudaError_t load_slot_combine() {
  for (DType const dtype : {DType::bf16, DType::f16}) {
    for (Kernel const kernel : {kernel_of<Wide>(dtype), kernel_of<Any>(dtype), kernel_of<Coded>(dtype)}) {
      cudaFuncAttributes attributes;
      if (cudaError_t const error = cudaFuncGetAttributes(&attributes, kernel); error != cudaSuccess) return error;
    }
  }
  return cudaSuccess;
}

}  // namespace switchyard::cuda
