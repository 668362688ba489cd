// Low-latency dispatch through the copy engine: rows lie in shared memory, as they are or after a cast, and leave
// from there, one copy for each place that a row goes to. Long writes are what memory takes best, and hardly any
// instructions are fetched for them.
#pragma once

#include "engine/cuda/phases/slot_cast.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"

namespace switchyard::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// What leaves lies behind what was loaded, if that is something else.
__device__ inline std::byte* leaving_row(SlotDispatchArgs const& args, Wave const& wave, int token) {
  std::size_t const before =
      args.cast == SendCast::none ? 0 : args.buffer_rows * static_cast<std::size_t>(args.x.bytes);
  return wave.buffer + before + static_cast<std::size_t>(token) * args.row_bytes;
}

// By the threads of a wave's slots: each starts the copy of its row, if it goes anywhere.
__device__ inline void start_rows(SlotDispatchArgs const& args, Wave const& wave) {
  int const slot = static_cast<int>(threadIdx.x);
  if (slot >= wave.tokens * args.top_k || wave.row[slot] == nullptr) return;
  ptx::bulk_store(wave.row[slot], leaving_row(args, wave, slot / args.top_k), args.row_bytes);
  ptx::bulk_commit();
}

// Loads of rows into the buffer: while the block finds out where they go.
__device__ inline void load_rows(SlotDispatchArgs const& args, Wave const& wave) {
  if (threadIdx.x == 0) ptx::barrier_expect(wave.loaded, static_cast<std::uint32_t>(wave.tokens) * args.x.bytes);
  __syncthreads();
  int const token = static_cast<int>(threadIdx.x);
  if (token < wave.tokens)
    ptx::bulk_load(wave.buffer + static_cast<std::size_t>(token) * args.x.bytes,
                   args.x.from + (wave.first + token) * args.x.stride, args.x.bytes, wave.loaded);
}

struct BulkRows {
  static constexpr bool bulk = true;
  __device__ static void ahead(SlotDispatchArgs const& args, Wave const& wave) { load_rows(args, wave); }
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    // Small writes first: behind the large ones they would wait.
    if (args.scale_rows.bytes > 0) send_pieces<uint4, 1>(args, wave, args.scale_rows, wave.scales);
    if (args.scales != nullptr) send_given_scales(args, wave);
    ptx::barrier_wait(wave.loaded, wave.parity);  // pairs with the loads of load_rows()
    start_rows(args, wave);
  }
};

template <typename Element>
struct BulkCast {
  static constexpr bool bulk = true;
  __device__ static void ahead(SlotDispatchArgs const& args, Wave const& wave) { load_rows(args, wave); }
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    ptx::barrier_wait(wave.loaded, wave.parity);  // pairs with the loads of load_rows()
    int const spans = static_cast<int>((args.hidden + cast_span - 1) / cast_span);
#pragma unroll 1
    for (int i = warp_of_block(); i < wave.tokens * spans; i += slot_warps) {
      int const token = i / spans;
      cast_span_wide<Element>(args, wave,
                              {.from = wave.buffer + static_cast<std::size_t>(token) * args.x.bytes,
                               .to = leaving_row(args, wave, token),
                               .token = token,
                               .span = i % spans});
    }
    ptx::fence_proxy_async();  // what this thread stored is there for the copy engine after the barrier
    __syncthreads();
    start_rows(args, wave);
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
