// Low-latency dispatch through the copy engine: rows lie in shared memory, as they are or after a cast, and leave
// from there, one copy for each place that a row goes to. Long writes are what memory takes best, and hardly any
// instructions are fetched for them.
#pragma once

#include "engine/cuda/phases/slot_cast.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"

namespace switchyard::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// By the threads of the slots [begin, end) of the wave: each starts the copy of its row, if it goes anywhere.
__device__ inline void start_rows(SlotDispatchArgs const& args, Wave const& wave, int begin, int end) {
  int const slot = static_cast<int>(threadIdx.x);
  if (slot < begin || slot >= end || wave.row[slot] == nullptr) return;
  ptx::bulk_store(wave.row[slot], wave.buffer + static_cast<std::size_t>(slot / args.top_k) * args.row_bytes,
                  args.row_bytes);
  ptx::bulk_commit();
}

// Loads of rows into the buffer: while the block finds out where they go.
__device__ inline void load_rows(SlotDispatchArgs const& args, Wave const& wave) {
  if (threadIdx.x == 0) ptx::barrier_expect(wave.loaded, static_cast<std::uint32_t>(wave.tokens) * args.row_bytes);
  __syncthreads();
  int const token = static_cast<int>(threadIdx.x);
  if (token < wave.tokens)
    ptx::bulk_load(wave.buffer + static_cast<std::size_t>(token) * args.row_bytes,
                   args.x.from + (wave.first + token) * args.x.stride, args.row_bytes, wave.loaded);
}

struct BulkRows {
  static constexpr bool bulk = true;
  __device__ static void ahead(SlotDispatchArgs const& args, Wave const& wave) { load_rows(args, wave); }
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    ptx::barrier_wait(wave.loaded, wave.parity);  // pairs with the loads of load_rows()
    start_rows(args, wave, 0, wave.tokens * args.top_k);
    if (args.scale_rows.bytes > 0) send_pieces<uint4, 1>(args, wave, args.scale_rows, wave.scales);
    if (args.scales != nullptr) send_given_scales(args, wave);
  }
};

template <typename Element>
struct BulkCast {
  static constexpr bool bulk = true;
  static constexpr int batch = 4;  // tokens that are cast while those before are on their way
  __device__ static void ahead(SlotDispatchArgs const& args, Wave const& wave) {
    fetch_rows(args.x, {wave.first, wave.first + wave.tokens});
  }
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    int const spans = static_cast<int>((args.hidden + cast_span - 1) / cast_span);
#pragma unroll 1
    for (int begin = 0; begin < wave.tokens; begin += batch) {
      int const end = min(begin + batch, wave.tokens);
#pragma unroll 1
      for (int i = begin * spans + warp_of_block(); i < end * spans; i += slot_warps)
        cast_span_wide<Element, true>(args, wave, i / spans, i % spans);
      ptx::fence_proxy_async();  // what this thread stored is there for the copy engine after the barrier
      __syncthreads();
      start_rows(args, wave, begin * args.top_k, end * args.top_k);
    }
  }
};

#else

// GPUs without a copy engine never run these.
struct BulkRows {
  static constexpr bool bulk = true;
  __device__ static void ahead(SlotDispatchArgs const&, Wave const&) {}
  __device__ static void send(SlotDispatchArgs const&, Wave const&) {}
};
template <typename Element>
struct BulkCast : BulkRows {};

#endif

}  // namespace switchyard::cuda
