// Low-latency dispatch through the copy engine: rows are brought into shared memory and leave from there, by one
// copy for each place that a row goes to. Memory takes long writes best, and hardly any instructions are fetched
// for them. Rows that are cast do not go this way: here they would wait until the last of them is cast, and as it
// is they leave meanwhile.
#pragma once

#include "engine/cuda/low_latency/kernels/rows.cuh"
#include "engine/cuda/low_latency/kernels/wave.cuh"
#include "engine/cuda/ptx/bulk_copy.cuh"

namespace switchyard::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900

// Each slot of the wave has a thread, which starts the copy of its row if that goes anywhere.
__device__ inline void start_rows(SlotDispatchArgs const& args, Wave const& wave) {
  int const slot = static_cast<int>(threadIdx.x);
  if (slot >= wave.tokens * args.top_k || wave.row[slot] == nullptr) return;
  // Receivers read the old rows through the generic proxy before they gave credit; the copy goes through the other
  // one.
  ptx::fence_proxy_async();
  ptx::bulk_store(wave.row[slot],
                  wave.buffer + static_cast<std::size_t>(slot_of_token(args, slot).token) * args.row_bytes,
                  args.row_bytes);
  ptx::bulk_commit();
}

// Starts the loads of rows into the buffer. They are under way while the block finds out where the rows go.
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
  __device__ static void prepare(SlotDispatchArgs const& args, Wave const& wave) { load_rows(args, wave); }
  // A block may not end while loads into its shared memory are under way.
  __device__ static void abandon(Wave const& wave) { ptx::barrier_wait(wave.loaded, wave.parity); }
  __device__ static void send(SlotDispatchArgs const& args, Wave const& wave) {
    // Small writes go first, because they would wait behind the large ones.
    if (args.scale_rows.bytes > 0) send_pieces<uint4, 1>(args, wave, args.scale_rows, wave.scales);
    if (args.scales != nullptr) send_given_scales(args, wave);
    ptx::barrier_wait(wave.loaded, wave.parity);  // pairs with the loads of load_rows()
    start_rows(args, wave);
  }
};

#else

// GPUs without a copy engine never run this.
struct BulkRows {
  static constexpr bool bulk = true;
  __device__ static void prepare(SlotDispatchArgs const&, Wave const&) {}
  __device__ static void abandon(Wave const&) {}
  __device__ static void send(SlotDispatchArgs const&, Wave const&) {}
};

#endif

}  // namespace switchyard::cuda
