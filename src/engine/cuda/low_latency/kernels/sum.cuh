// Low-latency combine, receive half: rows are read where their experts' ranks have them, and summed in f32.
// Products and sums are rounded one by one, as on the CPU; with no rows a sum is +0.
#pragma once

#include "engine/cuda/device/elements.cuh"
#include "engine/cuda/low_latency/kernels/rows.cuh"

namespace switchyard::cuda {

// In shared memory: the rows of a wave of tokens, those of a token one after another, in the order of the sum.
struct Sources {
  std::byte const** row;  // [tokens][top_k]
  float* weight;          // likewise
  int* count;             // [tokens]
  std::int64_t first;     // token
  int tokens;
};

// What a thread has asked for of its slot of a wave of tokens; -1: it adds nothing.
struct AskedSlot {
  int expert;
  int position;
  float weight;
};

// By all threads of a block. Loads only, which need not be there when it returns.
__device__ inline AskedSlot ask_for_slot(SlotCombineArgs const& args, std::int64_t first, int tokens) {
  int const thread = static_cast<int>(threadIdx.x);
  SlotOfToken const own = slot_of_token(args, thread);
  if (own.token >= tokens) return {-1, -1, 0};
  std::int64_t const at = first * args.top_k + thread;
  AskedSlot asked{.expert = frame_part<std::int32_t>(args, args.peers.rank, args.at.slot_expert)[at],
                  .position = frame_part<std::int32_t>(args, args.peers.rank, args.at.positions)[at],
                  .weight = 1.0F};
  if (args.weights.data != nullptr)
    asked.weight =
        args.weights.data[(first + own.token) * args.weights.row_stride + own.slot * args.weights.column_stride];
  return asked;
}

struct SumSlot {
  int rank = -1;
  std::byte const* row = nullptr;  // null: adds nothing
};

__device__ inline SumSlot sum_slot(SlotCombineArgs const& args, AskedSlot const& asked, std::uint64_t masked) {
  if (asked.expert < 0 || asked.position < 0) return {};
  int const rank = args.owners.rank_of(asked.expert);
  if ((masked >> rank & 1) != 0) return {};
  std::int64_t const row = args.rank_major
                               ? args.peers.rank * args.max_tokens + asked.position
                               : (asked.expert - args.experts.first(rank)) * args.rows_of_expert() + asked.position;
  return {rank, frame_part<std::byte>(args, rank, args.at.outputs) + row * args.output_bytes};
}

// By all threads of a block.
__device__ inline void find_sources(SlotCombineArgs const& args, Sources const& to, AskedSlot const& asked,
                                    std::uint64_t masked, int* ranks) {
  int const thread = static_cast<int>(threadIdx.x);
  SlotOfToken const at = slot_of_token(args, thread);
  bool const there = at.token < to.tokens;
  SumSlot const own = sum_slot(args, asked, masked);
  __syncthreads();  // the wave before is through
  if (there) ranks[thread] = own.rank;
  __syncthreads();
  if (there) {
    // How many of the token's rows come before this one: by rank (rank_major: one a rank), or by slot.
    int before = 0;
    int all = 0;
    for (int other = 0; other < args.top_k; ++other) {
      int const rank = ranks[at.token * args.top_k + other];
      if (rank < 0) continue;
      ++all;
      if (args.rank_major ? rank < own.rank : other < at.slot) ++before;
    }
    if (own.row != nullptr) {
      to.row[at.token * args.top_k + before] = own.row;
      to.weight[at.token * args.top_k + before] = asked.weight;
    }
    if (at.slot == 0) to.count[at.token] = all;
  }
  __syncthreads();
}

// Sources of rows for sum_wave(): elements that lie next to one another, as they are loaded. Wide: rows whose
// addresses suit 16-byte accesses.
template <typename Element>
struct WideOutputs {
  static constexpr int values = 8;
  using Loaded = uint4;
  __device__ static Loaded load(SlotCombineArgs const&, bool wanted, std::byte const* row, std::int64_t element) {
    return ptx::load_if(wanted, reinterpret_cast<uint4 const*>(row + element * 2));
  }
  __device__ static void widen(Loaded const& loaded, float (&out)[values]) {
#pragma unroll
    for (int i = 0; i < values; ++i) out[i] = Element::widen(reinterpret_cast<std::uint16_t const*>(&loaded)[i]);
  }
};

template <typename Element>
struct AnyOutputs {
  static constexpr int values = 1;
  using Loaded = std::uint16_t;
  __device__ static Loaded load(SlotCombineArgs const&, bool wanted, std::byte const* row, std::int64_t element) {
    return wanted ? *reinterpret_cast<std::uint16_t const*>(row + element * 2) : 0;
  }
  __device__ static void widen(Loaded const& loaded, float (&out)[values]) { out[0] = Element::widen(loaded); }
};

template <int values>
__device__ inline void add_row(float (&sum)[values], float const (&row)[values], float weight, bool weighted,
                               bool first) {
#pragma unroll
  for (int i = 0; i < values; ++i) {
    float const term = weighted ? __fmul_rn(row[i], weight) : row[i];
    sum[i] = first ? term : __fadd_rn(sum[i], term);
  }
}

// `elements` of a token from `element` on, those that there are.
template <typename Element, int values>
__device__ inline void store_sum(SlotCombineArgs const& args, std::int64_t token, std::int64_t element,
                                 float const (&sum)[values]) {
  auto* const out = reinterpret_cast<std::uint16_t*>(args.out + token * args.out_stride) + element;
  if constexpr (values == 8) {
    uint4 packed;
#pragma unroll
    for (int i = 0; i < values; ++i) reinterpret_cast<std::uint16_t*>(&packed)[i] = Element::narrow(sum[i]);
    *reinterpret_cast<uint4*>(out) = packed;
  } else {
#pragma unroll
    for (int i = 0; i < values; ++i) {
      if (element + i < args.hidden) out[i] = Element::narrow(sum[i]);
    }
  }
}

// One lane's elements of one token.
template <typename Element, typename Source>
__device__ inline void sum_elements(SlotCombineArgs const& args, Sources const& sources, int token,
                                    std::int64_t element) {
  constexpr int at_once = 8;  // rows under way
  constexpr int values = Source::values;
  float sum[values] = {};
  int const count = sources.count[token];
  bool const weighted = args.weights.data != nullptr;
#pragma unroll 1
  for (int first = 0; first < count; first += at_once) {
    typename Source::Loaded loaded[at_once];
    int const base = token * args.top_k + first;
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      bool const wanted = first + i < count;
      loaded[i] = Source::load(args, wanted, sources.row[wanted ? base + i : base], element);
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (first + i >= count) continue;
      float row[values];
      Source::widen(loaded[i], row);
      add_row<values>(sum, row, weighted ? sources.weight[base + i] : 1.0F, weighted, first + i == 0);
    }
  }
  store_sum<Element, values>(args, sources.first + token, element, sum);
}

// By all threads of a block.
template <typename Element, typename Source>
__device__ inline void sum_wave(SlotCombineArgs const& args, Sources const& sources) {
  constexpr int span = 32 * Source::values;  // elements of a warp
  int const spans = static_cast<int>((args.hidden + span - 1) / span);
  for (int i = warp_of_block(); i < sources.tokens * spans; i += slot_warps) {
    std::int64_t const element = static_cast<std::int64_t>(i % spans) * span + lane_of_warp() * Source::values;
    if (element < args.hidden) sum_elements<Element, Source>(args, sources, i / spans, element);
  }
}

}  // namespace switchyard::cuda
