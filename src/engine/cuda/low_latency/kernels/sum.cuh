// Low-latency combine, receive half: rows are read where their experts' ranks have them, and summed in f32. Every
// product and every sum is rounded on its own, as on the CPU engine. The sum of no rows is +0.
#pragma once

#include "engine/cuda/device/elements.cuh"
#include "engine/cuda/low_latency/kernels/tokens.cuh"
#include "engine/cuda/low_latency/kernels/words.cuh"

namespace switchyard::cuda {

// The rows of the tokens that a block sums at a time. Its arrays lie in shared memory. The rows of a token are
// adjacent, in the order of the sum.
struct Sources {
  std::byte const** row;  // [tokens][top_k]
  float* weight;          // [tokens][top_k]
  int* count;             // [tokens]
  std::int64_t first;     // token
  int tokens;
};

// What a thread has loaded of its slot. A word or position of -1 says that it adds nothing.
struct LoadedSlot {
  std::int32_t word;  // slot_expert_word()
  int position;
  float weight;
};

// All threads of a block call this. It only issues loads, which need not have completed when it returns.
__device__ inline LoadedSlot load_slot(SlotCombineArgs const& args, std::int64_t first, int tokens) {
  int const thread = static_cast<int>(threadIdx.x);
  SlotOfToken const own = slot_of_token(args, thread);
  if (own.token >= tokens) return {-1, -1, 0};
  std::int64_t const at = first * args.top_k + thread;
  LoadedSlot loaded{.word = own_part<std::int32_t>(args, args.at.slot_expert)[at],
                    .position = own_part<std::int32_t>(args, args.at.positions)[at],
                    .weight = 1.0F};
  if (args.weights.data != nullptr)
    loaded.weight =
        args.weights.data[(first + own.token) * args.weights.row_stride + own.slot * args.weights.column_stride];
  return loaded;
}

struct SumSlot {
  int rank = -1;
  std::byte const* row = nullptr;  // null: it adds nothing
};

__device__ inline SumSlot sum_slot(SlotCombineArgs const& args, LoadedSlot const& loaded, std::uint64_t mloaded) {
  if (loaded.word < 0 || loaded.position < 0) return {};
  int const expert = expert_of_word(loaded.word);
  int const rank = args.owners.rank_of(expert);
  if ((mloaded >> rank & 1) != 0) return {};
  std::int64_t const row = args.rank_major
                               ? args.peers.rank * args.max_tokens + loaded.position
                               : (expert - args.experts.first(rank)) * args.rows_of_expert() + loaded.position;
  std::size_t const outputs = args.at.bay(bay_of_word(loaded.word)) + args.at.outputs;
  return {rank, slot_part<std::byte>(args, rank, outputs) + row * args.output_bytes};
}

// All threads of a block call this.
__device__ inline void find_sources(SlotCombineArgs const& args, Sources const& to, LoadedSlot const& loaded,
                                    std::uint64_t mloaded, int* ranks) {
  int const thread = static_cast<int>(threadIdx.x);
  SlotOfToken const at = slot_of_token(args, thread);
  bool const there = at.token < to.tokens;
  SumSlot const own = sum_slot(args, loaded, mloaded);
  __syncthreads();  // the tokens before have been summed
  if (there) ranks[thread] = own.rank;
  __syncthreads();
  if (there) {
    // How many of the token's rows come before this one. They are ordered by rank (rank_major has one for each
    // rank) or by slot.
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
      to.weight[at.token * args.top_k + before] = loaded.weight;
    }
    if (at.slot == 0) to.count[at.token] = all;
  }
  __syncthreads();
}

// sum_wave() reads outputs through one of these structs: a lane loads adjacent elements of a row and widens them.

// Rows whose addresses suit 16-byte accesses.
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

// Any rows.
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

// Stores the sums of a token's elements from `element` on, as far as there are elements.
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

// One lane sums its elements of a token.
template <typename Element, typename Source>
__device__ inline void sum_elements(SlotCombineArgs const& args, Sources const& sources, int token,
                                    std::int64_t element) {
  constexpr int at_once = 8;  // rows whose loads are under way
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

// All threads of a block call this.
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
